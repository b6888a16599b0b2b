// edgewise merge MODEL --adapter RUN -o DIR
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/commands.h"
#include "cli/merge_output.h"
#include "formats/hf_dir.h"
#include "infer/export_exit.h"
#include "model/exit_set.h"

namespace edgewise::cli {

Result<std::optional<DType>> ParseMergeDType(const std::string& text) {
  EW_ASSIGN(const model::StorageDType storage, model::ParseStorageDType(text));
  switch (storage) {
    case model::StorageDType::kF32:
      return std::optional<DType>(DType::kF32);
    case model::StorageDType::kF16:
      return std::optional<DType>(DType::kF16);
    case model::StorageDType::kBF16:
      return std::optional<DType>(DType::kBF16);
    case model::StorageDType::kAsStored:
      break;
  }
  return std::optional<DType>();
}

Result<int64_t> ParseMemory(const std::string& text) {
  if (text.empty()) return int64_t{0};
  Result<int64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) return InvalidArgument("--memory: " + bytes.status().message());
  return *bytes;
}

void SetMergeResult(const infer::MergeReport& report, const std::string& out, Console& console) {
  OrderedJson json;
  json["output"] = out;
  json["merged"] = report.merged;
  json["tensors"] = report.tensors;
  json["bytes"] = report.bytes;
  json["dtype"] = report.dtype;
  json["logit_error"] = report.error;
  json["max_logit_error"] = report.max_error;
  json["predicted_peak_bytes"] = report.predicted_peak_bytes;
  console.SetResult(
      std::move(json),
      fmt::format("{}: {} matrices merged, {}, logits differ by {:.1e} of their size (limit "
                  "{:.1e})\n",
                  out, report.merged, FormatBytes(report.bytes), report.error, report.max_error));
}

namespace {

class Merge : public Command {
 public:
  std::string name() const override { return "merge"; }
  std::string summary() const override { return "Fold an adapter into its model's weights"; }

  void Declare(CLI::App& app) override {
    app.add_option("model,-m,--model", model_, "Hugging Face directory or hub id of the base");
    app.add_option("--adapter,--lora", adapter_, "PEFT adapter or run directory");
    app.add_option("-o,--output", out_, "Directory to write");
    app.add_option("--dtype", dtype_, "Type of the written matrices: as-stored, fp32, bf16, fp16")
        ->capture_default_str();
    app.add_option("--max-error", max_error_,
                   "Refuse when logits differ by more than this share of their size");
    app.add_option("--memory", memory_, "Most resident memory, for example 200MiB");
    app.add_flag("--overwrite", overwrite_, "Replace the output directory");
  }

  Status Run(Invocation& inv) override {
    if (model_.empty()) return InvalidArgument("no MODEL is named");
    if (adapter_.empty()) return InvalidArgument("no adapter is named (--adapter)");
    if (out_.empty()) return InvalidArgument("no output directory is named (-o)");
    infer::MergeOptions options;
    Result<std::optional<DType>> dtype = ParseMergeDType(dtype_);
    if (!dtype.ok()) return InvalidArgument("--dtype: " + dtype.status().message());
    options.dtype = *dtype;
    if (max_error_) options.max_error = *max_error_;
    options.overwrite = overwrite_;
    EW_ASSIGN(options.memory_bytes, ParseMemory(memory_));
    EW_ASSIGN(const formats::ModelLocation base, formats::ResolveModel(model_));
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    if (model::ExitSet::Exists(adapter_)) {
      EW_ASSIGN(const auto opened, model::Model::Load(base.path));
      EW_ASSIGN(const auto exits, model::ExitSet::Load(adapter_, opened->config()));
      EW_ASSIGN(const infer::MergeReport report,
                infer::ExportExitToHf(*exec, base, adapter_, exits.size() - 1, out_, options));
      SetMergeResult(report, out_, inv.console());
      return Status::Ok();
    }
    EW_ASSIGN(const infer::MergeReport report,
              infer::MergeToHfDirectory(*exec, base, adapter_, out_, options));
    SetMergeResult(report, out_, inv.console());
    return Status::Ok();
  }

 private:
  std::string model_, adapter_, out_, dtype_ = "as-stored", memory_;
  std::optional<double> max_error_;
  bool overwrite_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeMerge() { return std::make_unique<Merge>(); }

}  // namespace edgewise::cli
