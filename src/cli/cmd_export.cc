// edgewise export RUN --to peft|hf|gguf -o OUT
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "cli/commands.h"
#include "cli/merge_output.h"
#include "formats/hf_dir.h"
#include "infer/dense_export.h"
#include "infer/export_exit.h"
#include "infer/export_gguf.h"
#include "infer/export_memory.h"
#include "io/env.h"
#include "io/json.h"
#include "model/exit_set.h"
#include "model/lora.h"

namespace edgewise::cli {
namespace {

constexpr const char* kNoAdvice = "nothing makes it smaller";

class Export : public Command {
 public:
  std::string name() const override { return "export"; }
  std::string summary() const override { return "Write a tuned model for other programs"; }

  void Declare(CLI::App& app) override {
    app.add_option("run", run_, "Run of 'edgewise tune', PEFT adapter, packed base or GGUF file");
    app.add_option(
           "--to", to_,
           "peft: an adapter directory; hf: a whole model directory; gguf: a whole model in "
           "a file for llama.cpp")
        ->check(CLI::IsMember({"peft", "hf", "gguf"}));
    app.add_option("-o,--output", out_, "Directory (gguf: file) to write");
    app.add_option("--base,--model", base_, "The base model (default: the one the run names)");
    app.add_option("--dtype", dtype_, "hf: type of the matrices: as-stored, fp32, bf16, fp16")
        ->capture_default_str();
    app.add_option("--gguf-type", gguf_type_, "gguf: type of the matrices")
        ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0"}))
        ->capture_default_str();
    app.add_option(
           "--exit", exit_,
           "Of a run with exits: which one, from 0, or all, each into a directory exit-K in "
           "the output (default: the deepest)")
        ->check(CLI::IsMember({"all"}) | CLI::NonNegativeNumber);
    app.add_option("--memory", memory_, "Most resident memory, for example 200MiB");
    app.add_flag("--overwrite", overwrite_, "Replace the output directory");
  }

  Status Run(Invocation& inv) override {
    if (run_.empty()) return InvalidArgument("no RUN is named");
    if (to_.empty()) return InvalidArgument("no format is named (--to peft, hf or gguf)");
    if (out_.empty()) return InvalidArgument("nothing to write is named (-o)");
    if (PosixEnv().Exists(out_) && !overwrite_) {
      return InvalidArgument(out_ + " exists already; choose another name or --overwrite");
    }
    EW_ASSIGN(limit_, ParseMemory(memory_));
    while (out_.size() > 1 && out_.back() == '/') out_.pop_back();
    name_ = out_;
    return to_ == "gguf" ? ExportFile(inv) : ReplaceDirectory(inv);
  }

 private:
  // What is there already stays until the new directory is complete.
  Status ReplaceDirectory(Invocation& inv) {
    Env& env = PosixEnv();
    out_ = name_ + ".exporting";
    EW_RETURN_IF_ERROR(env.RemoveAll(out_));
    Status status = ExportDirectory(inv);
    if (status.ok() && env.Exists(name_)) status = env.RemoveAll(name_);
    if (status.ok()) status = env.Rename(out_, name_);
    if (!status.ok()) {
      (void)env.RemoveAll(out_);
      return status;
    }
    const std::string parent = DirName(name_);
    return env.SyncDir(parent.empty() ? "." : parent);
  }

  // Of a GGUF file by way of a directory, which has the vocabulary as it is wanted.
  Status ExportFile(Invocation& inv) {
    if (exit_ == "all") return InvalidArgument("--exit all: a GGUF file holds one exit");
    EW_ASSIGN(const formats::GgmlType type, infer::ParseGgufType(gguf_type_));
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    Env& env = PosixEnv();
    const std::string file = out_;
    std::string tuned, base_name = run_;
    if (model::ExitSet::Exists(run_) || env.Exists(JoinPath(run_, "adapter_config.json"))) {
      tuned = run_;
      EW_ASSIGN(base_name, BaseName());
    }
    EW_ASSIGN(formats::ModelLocation base, formats::ResolveModel(base_name));
    const bool by_directory = base.kind == formats::ModelLocation::Kind::kGguf;
    Status status;
    if (by_directory) {
      out_ = file + ".directory";
      EW_RETURN_IF_ERROR(env.RemoveAll(out_));
      to_ = "hf";
      dtype_ = "fp32";
      status = ExportDirectory(inv);
      base = {formats::ModelLocation::Kind::kHfDirectory, out_};
      tuned.clear();
    }
    infer::GgufReport report;
    if (status.ok()) {
      infer::GgufOptions options;
      options.overwrite = overwrite_;
      options.memory_bytes = limit_;
      if (!exit_.empty()) options.exit = std::atoi(exit_.c_str());
      Result<infer::GgufReport> written =
          infer::ExportGguf(*exec, base, tuned, type, file, options);
      status = written.status();
      if (written.ok()) report = *written;
    }
    if (by_directory) EW_RETURN_IF_ERROR(env.RemoveAll(base.path));
    EW_RETURN_IF_ERROR(status);
    OrderedJson json;
    json["output"] = file;
    json["format"] = "gguf";
    json["type"] = gguf_type_;
    json["tensors"] = report.tensors;
    json["bytes"] = report.bytes;
    json["logit_error"] = report.error;
    json["predicted_peak_bytes"] = report.predicted_peak_bytes;
    if (report.max_error > 0) json["max_logit_error"] = report.max_error;
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  Status ExportDirectory(Invocation& inv) {
    Env& env = PosixEnv();
    if (model::ExitSet::Exists(run_)) return ExportExit(inv);
    const bool adapter = env.Exists(JoinPath(run_, "adapter_config.json"));
    if (!adapter && !env.Exists(JoinPath(run_, "config.json")) && !run_.ends_with(".gguf")) {
      return NotFound(run_ +
                      ": neither an adapter nor a model (no adapter_config.json, no "
                      "config.json)");
    }
    if (!adapter) {
      EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(run_));
      return infer::NeedsDenseExport(location) ? ExportDense(inv, location)
                                               : ExportModel(inv, location);
    }
    EW_ASSIGN(const std::string base_name, BaseName());
    EW_ASSIGN(const formats::ModelLocation base, formats::ResolveModel(base_name));
    return to_ == "peft" ? ExportPeft(inv, base, base_name) : ExportMerged(inv, base);
  }

  // --base, else what edgewise.json or the adapter's configuration names.
  Result<std::string> BaseName() const {
    if (!base_.empty()) return base_;
    Env& env = PosixEnv();
    const std::string run_file = JoinPath(run_, "edgewise.json");
    if (env.Exists(run_file)) {
      EW_ASSIGN(const Json json, ReadJsonFile(run_file));
      if (json.is_object() && json.contains("base") && json["base"].is_object() &&
          json["base"].contains("path") && json["base"]["path"].is_string()) {
        return json["base"]["path"].get<std::string>();
      }
    }
    const std::string config_file = JoinPath(run_, "adapter_config.json");
    EW_ASSIGN(const Json json, ReadJsonFile(config_file));
    const char* key = "base_model_name_or_path";
    if (json.is_object() && json.contains(key) && json[key].is_string() &&
        !json[key].get<std::string>().empty()) {
      return json[key].get<std::string>();
    }
    return InvalidArgument(config_file + " names no base model: give it with --base");
  }

  Status ExportPeft(Invocation& inv, const formats::ModelLocation& base,
                    const std::string& base_name) {
    // The config alone is needed; opening the model maps its weights, which costs nothing.
    EW_ASSIGN(const auto model, model::Model::Load(base.path));
    EW_ASSIGN(const model::LoraAdapter adapter, model::LoadPeftAdapter(run_, model->config()));
    // Once more as it is written, and as it is read back with its file's pages.
    EW_RETURN_IF_ERROR(
        infer::FitExport(limit_, infer::WritingBytes() + 3 * adapter.values().size() * 4, kNoAdvice)
            .status());
    EW_RETURN_IF_ERROR(model::SavePeftAdapter(out_, adapter, base_name));
    EW_ASSIGN(const model::LoraAdapter read_back, model::LoadPeftAdapter(out_, model->config()));
    const FloatBuffer &want = adapter.values(), &got = read_back.values();
    if (want.size() != got.size() ||
        !std::equal(want.data(), want.data() + want.size(), got.data())) {
      return Internal(out_ + ": the written adapter does not read back as it was");
    }
    OrderedJson json;
    json["output"] = name_;
    json["format"] = "peft";
    json["base"] = base_name;
    json["parameters"] = adapter.parameter_count();
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  // One exit of a run of adaptive layer tuning.
  Status ExportExit(Invocation& inv) {
    EW_ASSIGN(const std::string base_name, BaseName());
    EW_ASSIGN(const formats::ModelLocation base, formats::ResolveModel(base_name));
    infer::MergeOptions options;
    Result<std::optional<DType>> dtype = ParseMergeDType(dtype_);
    if (!dtype.ok()) return InvalidArgument("--dtype: " + dtype.status().message());
    options.dtype = *dtype;
    options.memory_bytes = limit_;
    // The config alone is needed; opening the model maps its weights, which costs nothing.
    EW_ASSIGN(const auto model, model::Model::Load(base.path));
    EW_ASSIGN(const model::ExitSet exits, model::ExitSet::Load(run_, model->config()));
    if (exit_ != "all") {
      const int k = exit_.empty() ? exits.size() - 1 : std::atoi(exit_.c_str());
      return WriteExit(inv, base, base_name, *model, exits, k, out_, options);
    }
    EW_RETURN_IF_ERROR(PosixEnv().CreateDirs(out_));
    for (int k = 0; k < exits.size(); ++k) {
      EW_RETURN_IF_ERROR(WriteExit(inv, base, base_name, *model, exits, k,
                                   JoinPath(out_, fmt::format("exit-{}", k)), options));
    }
    OrderedJson json;
    json["output"] = name_;
    json["format"] = to_;
    json["exits"] = exits.size();
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  Status WriteExit(Invocation& inv, const formats::ModelLocation& base,
                   const std::string& base_name, const model::Model& model,
                   const model::ExitSet& exits, int k, const std::string& out,
                   const infer::MergeOptions& options) {
    const std::string name = name_ + out.substr(out_.size());  // as it will be called
    if (k < 0 || k >= exits.size()) {
      return InvalidArgument(
          fmt::format("--exit {}: {} has exits 0 to {}", k, run_, exits.size() - 1));
    }
    if (to_ == "hf") {
      EW_ASSIGN(ExecContext * exec, inv.Exec());
      EW_ASSIGN(const infer::MergeReport report,
                infer::ExportExitToHf(*exec, base, run_, k, out, options));
      SetMergeResult(report, name, inv.console());
      return Status::Ok();
    }
    const model::TunedExit& exit = exits.exit(k);
    int64_t floats = exit.head.size() + exit.head_lora_a.size() + exit.head_lora_b.size();
    const model::LoraAdapter* lora = exits.streams()[static_cast<size_t>(exit.stream)].lora;
    if (lora != nullptr) floats += lora->values().size();
    EW_RETURN_IF_ERROR(
        infer::FitExport(limit_, infer::WritingBytes() + floats * 4, kNoAdvice).status());
    EW_RETURN_IF_ERROR(infer::ExportExitToPeft(model.config(), exits, k, base_name, out));
    OrderedJson json;
    json["output"] = name;
    json["format"] = "peft";
    json["base"] = base_name;
    json["exit"] = k;
    json["layers"] = exits.exit(k).end;
    if (exits.exit(k).end < model.config().num_layers()) {
      inv.console().Log(
          fmt::format("note: {} belongs on the base cut to {} layers (num_hidden_layers)", name,
                      exits.exit(k).end));
    }
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  Status ExportMerged(Invocation& inv, const formats::ModelLocation& base) {
    infer::MergeOptions options;
    Result<std::optional<DType>> dtype = ParseMergeDType(dtype_);
    if (!dtype.ok()) return InvalidArgument("--dtype: " + dtype.status().message());
    options.dtype = *dtype;
    options.memory_bytes = limit_;
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    EW_ASSIGN(const infer::MergeReport report,
              infer::MergeToHfDirectory(*exec, base, run_, out_, options));
    SetMergeResult(report, name_, inv.console());
    return Status::Ok();
  }

  // A run of full fine-tuning holds a model already; its files are written again without the run's.
  Status ExportModel(Invocation& inv, const formats::ModelLocation& location) {
    EW_RETURN_IF_ERROR(CheckWholeModel());
    EW_ASSIGN(const auto tensors, formats::ShardedTensors::Open(run_));
    EW_ASSIGN(std::string config,
              PosixEnv().ReadFile(JoinPath(run_, "config.json"), int64_t{16} << 20));
    formats::HfDirWriter writer(std::move(config));
    int64_t bytes = 0;
    for (const std::string& name : tensors->Names()) {
      EW_ASSIGN(HostTensor tensor, tensors->Get(name));
      bytes += tensor.view.bytes();
      EW_RETURN_IF_ERROR(writer.Add(name, tensor.view.dtype, std::move(tensor.view.shape),
                                    formats::StoredTensor(tensors, name)));
    }
    EW_RETURN_IF_ERROR(infer::AddCompanionFiles(location, writer));
    EW_ASSIGN(const int64_t peak, infer::FitExport(limit_, infer::WritingBytes(), kNoAdvice));
    EW_RETURN_IF_ERROR(writer.Write(PosixEnv(), out_));
    OrderedJson json;
    json["output"] = name_;
    json["format"] = "hf";
    json["tensors"] = tensors->Names().size();
    json["bytes"] = bytes;
    json["predicted_peak_bytes"] = peak;
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  // A packed base or GGUF file: dense tensors with the same values.
  Status ExportDense(Invocation& inv, const formats::ModelLocation& location) {
    EW_RETURN_IF_ERROR(CheckWholeModel());
    Result<std::optional<DType>> dtype = ParseMergeDType(dtype_);
    if (!dtype.ok()) return InvalidArgument("--dtype: " + dtype.status().message());
    EW_ASSIGN(const infer::DenseReport report, infer::ExportDense(location, *dtype, out_, limit_));
    OrderedJson json;
    json["output"] = name_;
    json["format"] = "hf";
    json["tensors"] = report.tensors;
    json["bytes"] = report.bytes;
    json["predicted_peak_bytes"] = report.predicted_peak_bytes;
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  Status CheckWholeModel() const {
    if (to_ != "peft") return Status::Ok();
    return Unsupported(run_ + " holds a whole model, not an adapter: use --to hf");
  }

  // What is asked for, and where it is written until it is complete.
  std::string name_, out_;
  std::string run_, to_, exit_, base_, dtype_ = "as-stored", gguf_type_ = "f16", memory_;
  int64_t limit_ = 0;  // bytes; 0: none
  bool overwrite_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeExport() { return std::make_unique<Export>(); }

}  // namespace edgewise::cli
