#include "tune/model_method.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "formats/peft.h"
#include "formats/safetensors.h"
#include "io/json.h"
#include "tune/memory_estimate.h"
#include "tune/optimizer.h"
#include "tune/peft_files.h"

namespace edgewise::tune {
namespace {

constexpr const char* kModelFile = "model.safetensors";
constexpr int64_t kMaxExtraBytes = int64_t{256} << 20;

}  // namespace

std::string_view MethodName(MethodKind kind) {
  switch (kind) {
    case MethodKind::kLora:
      return "lora";
    case MethodKind::kLastN:
      return "last-n";
    case MethodKind::kFull:
      return "full";
  }
  return "?";
}

Result<MethodKind> ParseMethod(std::string_view name) {
  for (MethodKind kind : {MethodKind::kLora, MethodKind::kLastN, MethodKind::kFull}) {
    if (name == MethodName(kind)) return kind;
  }
  return InvalidArgument(fmt::format("unknown method \"{}\": use lora, last-n or full", name));
}

Result<model::LoraAdapter> MakeAdapter(const model::ModelConfig& config,
                                       const ModelMethodOptions& options) {
  if (!options.init_adapter.empty()) {
    return model::LoadPeftAdapter(options.init_adapter, config);
  }
  model::LoraConfig lora = options.lora;
  if (options.kind == MethodKind::kLastN) {
    if (options.last_layers < 1) {
      return InvalidArgument("last-n needs at least one layer to train");
    }
    lora.layers_to_transform =
        model::LastLayers(config, std::min(options.last_layers, config.num_layers()));
  }
  return model::LoraAdapter::Create(config, lora, options.init_seed);
}

std::vector<plan::Recompute> RecomputedLayers(const model::ModelConfig& config,
                                              const model::GradientMap& wanted,
                                              plan::Recompute recompute) {
  std::vector<plan::Recompute> out;
  if (recompute == plan::Recompute::kNone) return out;
  const int64_t layers = config.num_layers();
  out.assign(static_cast<size_t>(layers), plan::Recompute::kNone);
  std::fill(out.begin() + std::min(wanted.first_layer(), layers), out.end(), recompute);
  return out;
}

ModelMethod::ModelMethod(ExecContext& ctx, model::Model& model, ModelMethodOptions options,
                         int64_t max_tokens)
    : model_(model), options_(std::move(options)), pass_(ctx, model, max_tokens) {}

Result<std::unique_ptr<ModelMethod>> ModelMethod::Create(ExecContext& ctx, model::Model& model,
                                                         ModelMethodOptions options,
                                                         int64_t max_tokens) {
  if (max_tokens < 1) return InvalidArgument("a batch holds at least one token");
  if (!(options.head_skip_below >= 0 && options.head_skip_below < 1)) {
    return InvalidArgument("the head's skip threshold is a probability in [0, 1)");
  }
  // Before the pass is made: it may look at the weights.
  if (options.kind == MethodKind::kFull) EW_RETURN_IF_ERROR(model.MakeTrainable());
  std::unique_ptr<ModelMethod> m(new ModelMethod(ctx, model, std::move(options), max_tokens));
  if (m->options_.kind == MethodKind::kFull) {
    EW_ASSIGN(m->params_, model::ParameterSet::ForModel(model));
  } else {
    EW_ASSIGN(m->adapter_, MakeAdapter(model.config(), m->options_));
    m->params_ = model::ParameterSet::ForLora(*m->adapter_);
  }
  m->recompute_ = RecomputedLayers(model.config(), m->params_->gradients(), m->options_.recompute);
  return m;
}

model::PassOptions ModelMethod::PassOptions() const {
  model::PassOptions o;
  o.lora = adapter();
  o.gradients = &params_->gradients();
  o.recompute = recompute_;
  o.mlp_rows = options_.mlp_rows;
  o.layers_in_memory = options_.layers_in_memory;
  o.spill = options_.spill;
  o.head_skip_below = options_.head_skip_below;
  o.times = options_.times;
  if (adapter_) o.dropout = static_cast<float>(adapter_->lora_config().lora_dropout);
  return o;
}

Status ModelMethod::BeginStep(int64_t, std::vector<int32_t>* active) {
  active->resize(params().size());
  std::iota(active->begin(), active->end(), 0);
  params_->ZeroGrads();
  return Status::Ok();
}

Result<LossSum> ModelMethod::Micro(const TokenBatch& batch, const MicroContext& context) {
  model::PassOptions o = PassOptions();
  o.grad_scale = context.grad_scale;
  o.dropout_seed = context.seed;
  o.dropout_key =
      (static_cast<uint64_t>(context.step) << 20) | static_cast<uint64_t>(context.micro);
  EW_ASSIGN(const kernels::HeadLossResult r, pass_.Run(batch, o));
  return LossSum{r.loss_sum, r.labelled, r.correct};
}

Status ModelMethod::Micros(std::span<const TokenBatch* const> batches,
                           std::span<const int64_t> micros, MicroContext context,
                           std::vector<LossSum>* losses) {
  if (batches.size() < 2) return Method::Micros(batches, micros, context, losses);
  model::PassOptions o = PassOptions();
  o.grad_scale = context.grad_scale;
  o.dropout_seed = context.seed;
  std::vector<model::TrainingPass::GroupRow> rows;
  for (size_t i = 0; i < batches.size(); ++i) {
    const uint64_t key =
        (static_cast<uint64_t>(context.step) << 20) | static_cast<uint64_t>(micros[i]);
    rows.push_back({batches[i], nullptr, key, 0});
  }
  EW_ASSIGN(const auto results, pass_.RunGroup(rows, o));
  losses->clear();
  for (const kernels::HeadLossResult& r : results) {
    losses->push_back({r.loss_sum, r.labelled, r.correct});
  }
  return Status::Ok();
}

Result<LossSum> ModelMethod::Evaluate(const TokenBatch& batch) {
  model::PassOptions o;
  o.lora = adapter();
  o.mlp_rows = options_.mlp_rows;
  EW_ASSIGN(const kernels::HeadLossResult r, pass_.Run(batch, o));
  return LossSum{r.loss_sum, r.labelled, r.correct};
}

report::HeldMemory ModelMethod::Held() const {
  report::HeldMemory held;
  const int64_t trained = ParameterBytes(params());
  // Full fine-tuning trains the base's own weights.
  held.weights = adapter_ ? HeldWeightBytes(model_) : trained;
  held.trainable = adapter_ ? trained : 0;
  held.gradients = trained;
  const model::PassMemory pass = pass_.memory();
  held.activations = pass.activations;
  held.scratch = pass.scratch;
  return held;
}

Result<std::vector<ResultFile>> ModelMethod::Files() {
  std::vector<ResultFile> files;
  EW_ASSIGN(ResultFile tensors, TensorFile(adapter_ ? kAdapterFile : kModelFile, params()));
  files.push_back(std::move(tensors));
  if (adapter_) files.push_back(AdapterConfigFile(*adapter_, options_.base_name));
  return files;
}

Result<std::vector<ResultFile>> ModelMethod::ExportFiles() {
  std::vector<ResultFile> files;
  if (adapter_ || options_.base_directory.empty()) return files;
  Env& env = PosixEnv();
  const std::string config_path = JoinPath(options_.base_directory, "config.json");
  if (!env.Exists(config_path)) return files;
  EW_ASSIGN(Json config, ReadJsonFile(config_path));
  // The weights are written as the optimiser keeps them.
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (config.contains(key)) config[key] = "float32";
  }
  config.erase("quantization_config");
  for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json", "chat_template.jinja"}) {
    const std::string path = JoinPath(options_.base_directory, name);
    if (!env.Exists(path)) continue;
    EW_ASSIGN(std::string text, env.ReadFile(path, kMaxExtraBytes));
    files.push_back(TextFile(name, std::move(text)));
  }
  files.push_back(TextFile("config.json", DumpJson(config, 2) + "\n"));
  return files;
}

Status ModelMethod::Restore(const std::string& directory) {
  const std::string path = JoinPath(directory, adapter_ ? kAdapterFile : kModelFile);
  EW_ASSIGN(auto file, formats::SafetensorsFile::Open(path));
  Status status = LoadParameters(*file, params());
  return status.ok() ? status : status.WithContext(path);
}

std::string ModelMethod::OptionsJson() const {
  OrderedJson j;
  j["dtype"] = std::string(DTypeName(options_.base_dtype));
  if (adapter_) {
    formats::LoraConfig config = adapter_->lora_config();
    ListTargets(*adapter_, &config);
    Result<Json> lora = ParseJson(formats::FormatLoraConfig(config));
    for (const char* key : {"r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules",
                            "rank_pattern", "alpha_pattern", "layers_to_transform"}) {
      if (lora.ok() && lora->contains(key)) j[key] = (*lora)[key];
    }
    if (options_.init_adapter.empty()) {
      j["init_seed"] = options_.init_seed;
    } else {
      j["init_adapter"] = options_.init_adapter;
    }
  }
  if (options_.head_skip_below > 0) j["head_skip_below"] = options_.head_skip_below;
  return DumpJson(j);
}

}  // namespace edgewise::tune
