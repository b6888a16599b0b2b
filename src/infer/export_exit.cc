#include "infer/export_exit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "formats/peft.h"
#include "infer/dense_export.h"
#include "infer/export_memory.h"
#include "infer/logit_error.h"
#include "io/env.h"
#include "io/json.h"
#include "model/save.h"
#include "model/weight_table.h"

namespace edgewise::infer {
namespace {

Result<std::string> TruncatedConfig(const std::string& text, int64_t layers, bool own_head) {
  EW_ASSIGN(Json json, ParseJson(text));
  if (!json.is_object()) return BadInput("config.json of the base is not an object");
  json["num_hidden_layers"] = layers;
  if (own_head) json["tie_word_embeddings"] = false;
  if (json.contains("layer_types") && json["layer_types"].is_array()) {
    Json& types = json["layer_types"];
    while (static_cast<int64_t>(types.size()) > layers) types.erase(types.size() - 1);
  }
  return DumpJson(json, 2) + "\n";
}

formats::TensorProducer Floats(const FloatBuffer& values, DType dtype) {
  return [&values, dtype](const formats::ByteSink& sink) -> Status {
    const int64_t step = std::min<int64_t>(int64_t{1} << 18, values.size());
    std::vector<std::byte> bytes(static_cast<size_t>(step) * DTypeBytes(dtype));
    for (int64_t at = 0; at < values.size(); at += step) {
      const int64_t n = std::min(step, values.size() - at);
      ConvertFromF32(dtype, values.data() + at, bytes.data(), n);
      EW_RETURN_IF_ERROR(sink({bytes.data(), static_cast<size_t>(n) * DTypeBytes(dtype)}));
    }
    return Status::Ok();
  };
}

// Removes what was written unless it was right.
class Scratch {
 public:
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  ~Scratch() {
    if (!path_.empty()) (void)PosixEnv().RemoveAll(path_);
  }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

struct Writing {
  formats::HfDirWriter& writer;
  MergeReport report;
  std::set<std::string> dtypes;
  double limit = 0;

  Status Add(const std::string& name, DType dtype, const std::vector<int64_t>& shape,
             formats::TensorProducer producer) {
    int64_t elements = 1;
    for (int64_t d : shape) elements *= d;
    ++report.tensors;
    report.bytes += elements * static_cast<int64_t>(DTypeBytes(dtype));
    if (shape.size() == 2) {
      dtypes.emplace(DTypeName(dtype));
      limit = std::max(limit, DefaultMergeError(dtype));
    }
    return writer.Add(name, dtype, shape, std::move(producer));
  }
};

Status AddWeights(const model::Model& model, const model::ExitSet& exits, int k,
                  const model::LoraSlot& head_slot, std::optional<DType> wanted, bool own_head,
                  Writing& out) {
  const model::ModelConfig& c = model.config();
  const model::TunedExit& exit = exits.exit(k);
  const model::ExitStream& stream = exits.streams()[static_cast<size_t>(exit.stream)];
  std::vector<model::WeightId> ids = model::ListWeights(c);
  if (c.tied && own_head) ids.push_back({model::WeightRole::kHead, -1, {}});
  for (const model::WeightId& id : ids) {
    if (id.layer >= exit.end) continue;
    const DType dtype = DenseTypeOf(model, id, wanted);
    const std::string name = model::HfName(c, id);
    const std::vector<int64_t> shape = model::ShapeOf(c, id);
    if (id.role == model::WeightRole::kFinalNorm && !exit.norm.empty()) {
      EW_RETURN_IF_ERROR(out.Add(name, dtype, shape, Floats(exit.norm, dtype)));
      continue;
    }
    if (id.role == model::WeightRole::kHead && !exit.head.empty()) {
      EW_RETURN_IF_ERROR(out.Add(name, dtype, shape, Floats(exit.head, dtype)));
      continue;
    }
    const model::LoraSlot* slot = nullptr;
    if (id.role == model::WeightRole::kLinear && stream.lora != nullptr &&
        stream.layers.contains(id.layer)) {
      slot = stream.lora->slot(id.layer, id.kind);
    }
    if (id.role == model::WeightRole::kHead && head_slot.r > 0) slot = &head_slot;
    if (slot != nullptr) ++out.report.merged;
    EW_RETURN_IF_ERROR(out.Add(name, dtype, shape, model::WeightProducer(model, id, dtype, slot)));
  }
  return Status::Ok();
}

}  // namespace

Result<MergeReport> ExportExitToHf(ExecContext& ctx, const formats::ModelLocation& base,
                                   const std::string& run_dir, int k, const std::string& out,
                                   const MergeOptions& options) {
  Env& env = PosixEnv();
  if (env.Exists(out) && !options.overwrite) {
    return InvalidArgument(out + " exists already; choose another directory or --overwrite");
  }
  EW_ASSIGN(const auto model, model::Model::Load(base.path, {.keep_quant = true}));
  EW_ASSIGN(const model::ExitSet exits, model::ExitSet::Load(run_dir, model->config()));
  if (k < 0 || k >= exits.size()) {
    return InvalidArgument(
        fmt::format("exit {}: the exits of {} are 0 to {}", k, run_dir, exits.size() - 1));
  }
  const model::TunedExit& exit = exits.exit(k);
  const bool own_head = exit.head_lora_rank > 0 || !exit.head.empty();
  const model::LoraSlot head_slot = exit.HeadSlot();
  EW_ASSIGN(std::string config, DenseConfig(base, *model, options.dtype));
  EW_ASSIGN(config, TruncatedConfig(config, exit.end, own_head));
  formats::HfDirWriter writer(std::move(config));
  Writing w{writer, {}, {}, 0};
  std::optional<DType> dtype = options.dtype;
  if (NeedsDenseExport(base)) dtype = dtype.value_or(DType::kF32);
  EW_RETURN_IF_ERROR(AddWeights(*model, exits, k, head_slot, dtype, own_head, w));
  EW_RETURN_IF_ERROR(AddCompanionFiles(base, writer));

  const model::ExitStream& stream = exits.streams()[static_cast<size_t>(exit.stream)];
  const ProbedModel tuned{base.path, stream.lora, stream.layers.begin, exit.end, exit.Head()};
  const int64_t comparing = LogitErrorBytes(ctx, *model, tuned, ProbeBytesOf(*model),
                                            DenseProbeBytes(*model, model->config(), dtype));
  EW_ASSIGN(w.report.predicted_peak_bytes,
            FitExport(options.memory_bytes, std::max(WritingBytes(), comparing), kDTypeAdvice));

  std::string target = out;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  const std::string temporary = target + ".merging";
  Scratch scratch(temporary);
  EW_RETURN_IF_ERROR(env.RemoveAll(temporary));
  EW_RETURN_IF_ERROR(writer.Write(env, temporary));
  MergeReport& report = w.report;
  EW_ASSIGN(report.error, LogitError(ctx, tuned, {temporary}));
  report.max_error = options.max_error >= 0 ? options.max_error : w.limit;
  for (const std::string& d : w.dtypes) report.dtype += (report.dtype.empty() ? "" : "/") + d;
  if (report.error > report.max_error) {
    return BadInput(fmt::format(
        "the exported model's logits differ from the exit's by {:.2e} of their size, more than "
        "{:.2e}; write it in a finer type (--dtype fp32) or accept more (--max-error)",
        report.error, report.max_error));
  }
  if (options.overwrite) EW_RETURN_IF_ERROR(env.RemoveAll(target));
  EW_RETURN_IF_ERROR(env.Rename(temporary, target));
  scratch.Keep();
  const std::string parent = DirName(target);
  EW_RETURN_IF_ERROR(env.SyncDir(parent.empty() ? "." : parent));
  return std::move(report);
}

Status ExportExitToPeft(const model::ModelConfig& config, const model::ExitSet& exits, int k,
                        const std::string& base_name, const std::string& out) {
  if (k < 0 || k >= exits.size()) {
    return InvalidArgument(fmt::format("exit {}: the exits are 0 to {}", k, exits.size() - 1));
  }
  const model::TunedExit& exit = exits.exit(k);
  const model::ExitStream& stream = exits.streams()[static_cast<size_t>(exit.stream)];
  formats::PeftAdapter peft;
  peft.config = stream.lora->lora_config();
  peft.config.base_model_name_or_path = base_name;
  peft.config.targets = formats::LoraConfig::Targets::kList;
  peft.config.target_modules.clear();
  // The tensors say which modules have an adapter; layer lists would not cover the head.
  peft.config.layers_to_transform.reset();
  const int64_t end = std::min(stream.layers.end, exit.end);
  for (int64_t layer = stream.layers.begin; layer < end; ++layer) {
    for (model::LinearKind kind : model::kAllLinears) {
      const model::LoraSlot* s = stream.lora->slot(layer, kind);
      if (s == nullptr) continue;
      const std::string path = model::LinearPath(layer, kind);
      peft.config.target_modules.push_back(path);
      peft.pairs.emplace(path, formats::LoraPair{formats::MakeFloatTensor({s->r, s->in}, s->a),
                                                 formats::MakeFloatTensor({s->out, s->r}, s->b)});
    }
  }
  if (exit.head_lora_rank > 0) {
    const model::LoraSlot s = exit.HeadSlot();
    peft.config.target_modules.push_back("lm_head");
    peft.pairs.emplace("lm_head", formats::LoraPair{formats::MakeFloatTensor({s.r, s.in}, s.a),
                                                    formats::MakeFloatTensor({s.out, s.r}, s.b)});
    const double alpha = static_cast<double>(s.scale) * static_cast<double>(s.r);
    peft.config.rank_pattern.emplace_back("lm_head", s.r);
    peft.config.alpha_pattern.emplace_back(
        "lm_head", peft.config.use_rslora ? alpha / std::sqrt(static_cast<double>(s.r)) : alpha);
  }
  if (!exit.norm.empty()) {
    peft.config.modules_to_save.push_back("model.norm");
    peft.saved.emplace("model.norm.weight",
                       formats::MakeFloatTensor({config.hidden}, exit.norm.data()));
  }
  if (!exit.head.empty()) {
    peft.config.modules_to_save.push_back("lm_head");
    peft.saved.emplace("lm_head.weight",
                       formats::MakeFloatTensor({config.vocab, config.hidden}, exit.head.data()));
  }
  return formats::WritePeftAdapter(PosixEnv(), out, peft);
}

}  // namespace edgewise::infer
