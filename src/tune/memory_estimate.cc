#include "tune/memory_estimate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/units.h"
#include "model/lora.h"
#include "model/parameters.h"
#include "model/training_pass.h"
#include "model/weight_stream.h"

namespace edgewise::tune {
namespace {

// The most that the kernels pack at once (10 MiB of rows and 4 MiB of tiles in the head's loss,
// less elsewhere), and what each thread packs for itself.
constexpr int64_t kSharedScratch = int64_t{14} << 20;
constexpr int64_t kScratchPerThread = int64_t{2} << 20;

// Which gradients full fine-tuning wants, without storage behind them.
model::GradientMap AllWanted(const model::Model& model, float* somewhere) {
  const model::ModelConfig& config = model.config();
  model::GradientMap map;
  map.layers.resize(static_cast<size_t>(config.num_layers()));
  for (model::LayerGradients& layer : map.layers) {
    for (model::LinearKind kind : model::kAllLinears) {
      model::LinearGradients& g = layer.linears[static_cast<size_t>(kind)];
      g.weight = somewhere;
      if (model::HasBias(config, kind)) g.bias = somewhere;
    }
    layer.attn_norm = layer.mlp_norm = somewhere;
  }
  map.embedding = map.head = map.final_norm = somewhere;
  return map;
}

// Of the method over the depth that it says; `trained`: numbers that are tuned, 0 until known.
Result<model::PassMemory> PassOf(ExecContext& ctx, const model::Model& model,
                                 const MemoryRequest& r, int64_t* trained) {
  const model::ModelConfig& config = model.config();
  float somewhere = 0;
  model::GradientMap wanted;
  std::optional<model::LoraAdapter> adapter;
  std::optional<model::ParameterSet> parameters;
  const bool full = r.method.kind == MethodKind::kFull;
  if (full) {
    wanted = AllWanted(model, &somewhere);
  } else {
    EW_ASSIGN(adapter, MakeAdapter(config, r.method));
    parameters = model::ParameterSet::ForLora(*adapter);
    if (*trained == 0) *trained = parameters->count();
  }
  if (r.pass) return r.pass(r.method, r.max_tokens);
  model::PassOptions o;
  o.gradients = full ? &wanted : &parameters->gradients();
  o.lora = adapter ? &*adapter : nullptr;
  o.dropout = static_cast<float>(r.method.lora.lora_dropout);
  const std::vector recompute = RecomputedLayers(config, *o.gradients, r.method.recompute);
  o.recompute = recompute;
  o.mlp_rows = r.method.mlp_rows;
  o.layers_in_memory = r.method.layers_in_memory;
  return model::TrainingPass(ctx, model, r.max_tokens).MemoryNeeded(o);
}

// The most of `limit` bytes that units can take: they come whole.
int64_t LargestHeld(const model::WeightStream& stream, int64_t limit) {
  constexpr int64_t kPage = 4096;
  std::vector<bool> reached(static_cast<size_t>(limit / kPage + 1), false);
  reached[0] = true;
  int64_t top = 0;
  for (int64_t u = 0; u < stream.units(); ++u) {
    const int64_t pages = (stream.unit_bytes(u) + kPage - 1) / kPage;
    for (int64_t at = top; at >= 0; --at) {
      const auto to = static_cast<size_t>(at + pages);
      if (!reached[static_cast<size_t>(at)] || to >= reached.size()) continue;
      reached[to] = true;
      top = std::max(top, at + pages);
    }
  }
  return top * kPage;
}

struct Change {
  std::string what;
  MemoryRequest request;
};

std::vector<Change> Alternatives(const model::Model& model, const MemoryRequest& r) {
  std::vector<Change> out;
  MemoryRequest changed = r;
  std::string what;
  const auto add = [&](std::string text) {
    what += (what.empty() ? "" : ", ") + text;
    out.push_back({what, changed});
  };
  if (r.method.recompute != plan::Recompute::kLayer) {
    changed.method.recompute = plan::Recompute::kLayer;
    add("recompute activations");
  }
  const bool full = r.method.kind == MethodKind::kFull;
  const double held = static_cast<double>(model.weight_bytes()) /
                      static_cast<double>(std::max<int64_t>(model.config().parameter_count(), 1));
  if (!full && (r.bytes_per_weight > 2 || (r.bytes_per_weight == 0 && held > 2.5))) {
    changed.bytes_per_weight = 2;
    add("hold the base in bf16");
  }
  for (int64_t tokens = r.max_tokens / 2; tokens >= 64; tokens /= 2) {
    changed.max_tokens = tokens;
    MemoryRequest with = changed;
    out.push_back(
        {fmt::format("{}{}at most {} tokens a batch", what, what.empty() ? "" : ", ", tokens),
         with});
  }
  if (full) {
    changed.method.kind = MethodKind::kLora;
    changed.method.lora.targets = formats::LoraConfig::Targets::kAllLinear;
    changed.max_tokens = r.max_tokens;
    out.push_back({"method lora with recomputation", changed});
  }
  return out;
}

}  // namespace

std::vector<RecomputeForm> FormsToTry(const MemoryRequest& request) {
  const ModelMethodOptions& asked = request.method;
  std::vector<RecomputeForm> out = {{asked.recompute, asked.mlp_rows}};
  for (const int64_t rows : plan::MlpPieces(asked.mlp_rows, request.max_tokens)) {
    for (const auto recompute : {plan::Recompute::kMlp, plan::Recompute::kLayer}) {
      const bool first = recompute == asked.recompute && rows == asked.mlp_rows;
      if (recompute >= asked.recompute && !first) out.push_back({recompute, rows});
    }
  }
  return out;
}

std::string MemoryEstimate::ToString() const {
  return fmt::format(
      "{}: weights {}, adapter {}, gradients {}, optimizer {}, activations {}, scratch {}, "
      "program and data {}",
      FormatBytes(total()), FormatBytes(weights), FormatBytes(trainable), FormatBytes(gradients),
      FormatBytes(optimizer), FormatBytes(activations), FormatBytes(scratch), FormatBytes(runtime));
}

int64_t HeldWeightBytes(const model::Model& model) {
  const model::WeightStream* stream = model.stream();
  if (stream == nullptr) return model.weight_bytes();
  return model.weight_bytes() - stream->total_bytes() + stream->resident_bytes();
}

int64_t ParameterBytes(const std::vector<model::Parameter>& params) {
  int64_t count = 0;
  for (const model::Parameter& p : params) count += p.count;
  return count * static_cast<int64_t>(sizeof(float));
}

Result<MemoryEstimate> EstimateMemory(ExecContext& ctx, const model::Model& model,
                                      const MemoryRequest& r) {
  const model::ModelConfig& config = model.config();
  const bool full = r.method.kind == MethodKind::kFull;
  MemoryEstimate e;
  e.runtime = r.runtime_bytes;
  const int64_t base = config.parameter_count();
  if (full) {
    e.weights = base * static_cast<int64_t>(sizeof(float));
  } else if (r.bytes_per_weight > 0) {
    e.weights = static_cast<int64_t>(r.bytes_per_weight * static_cast<double>(base));
  } else {
    e.weights = model.weight_bytes();
  }

  int64_t trained = full ? base : r.trained;
  model::PassMemory memory;
  if (r.pass && trained > 0) {
    memory = r.pass(r.method, r.max_tokens);
  } else {
    EW_ASSIGN(memory, PassOf(ctx, model, r, &trained));
  }
  if (!full) e.trainable = trained * static_cast<int64_t>(sizeof(float));
  e.gradients = trained * static_cast<int64_t>(sizeof(float));
  e.optimizer = 2 * e.gradients;
  e.activations = memory.activations * std::max<int64_t>(r.group, 1);
  e.scratch =
      memory.scratch + (r.kernel_scratch > 0 ? r.kernel_scratch
                                             : kSharedScratch + ctx.threads() * kScratchPerThread);
  return e;
}

Result<MemoryFit> FitStreamed(ExecContext& ctx, const model::Model& model,
                              const MemoryRequest& request, int64_t limit_bytes,
                              int64_t* smallest) {
  MemoryFit fit;
  MemoryRequest r = request;
  const int64_t all = model.weight_bytes();
  const model::WeightStream& stream = *model.stream();
  // Norms and biases, and room to read one unit while another computes.
  const int64_t vectors = all - stream.total_bytes();
  const int64_t least = stream.least_bytes(request.whole_head);
  const int64_t used =
      std::max(least, request.used_weights > 0 ? request.used_weights : stream.total_bytes());
  int64_t rest = 0;
  // Sets `fit`; whether it is within the limit.
  const auto fits = [&](plan::Recompute recompute, int64_t mlp_rows,
                        int64_t layers_in_memory) -> Result<bool> {
    r.method.recompute = fit.recompute = recompute;
    r.method.mlp_rows = fit.mlp_rows = mlp_rows;
    r.method.layers_in_memory = fit.layers_in_memory = layers_in_memory;
    EW_ASSIGN(fit.estimate, EstimateMemory(ctx, model, r));
    rest = fit.estimate.total() - fit.estimate.weights + vectors;
    const int64_t budget = std::min(limit_bytes - rest, used);
    fit.offloaded = budget < used;
    if (budget >= least) {
      fit.weight_budget = fit.offloaded ? LargestHeld(stream, budget) : budget;
    }
    fit.estimate.weights = std::max(fit.weight_budget, least) + vectors;
    return budget >= least;
  };
  const ModelMethodOptions& asked = request.method;
  bool found = false;
  for (const RecomputeForm& form : FormsToTry(request)) {
    EW_ASSIGN(found, fits(form.recompute, form.mlp_rows, asked.layers_in_memory));
    if (found) break;
  }
  const int64_t rows = fit.mlp_rows;
  constexpr auto kLayer = plan::Recompute::kLayer;
  if (!found && request.may_spill) {
    // The most layers in memory that fit.
    int64_t low = 0, high = asked.layers_in_memory >= 0 ? asked.layers_in_memory
                                                        : model.config().num_layers();
    EW_ASSIGN(found, fits(kLayer, rows, 0));
    while (found && high - low > 1) {
      const int64_t middle = (low + high) / 2;
      EW_ASSIGN(const bool more, fits(kLayer, rows, middle));
      (more ? low : high) = middle;
    }
    EW_ASSIGN(found, fits(kLayer, rows, low));
  }
  if (found) return fit;
  // What is resident varies a little from one process to the next.
  const int64_t works = (fit.estimate.total() >> 20) + 2;
  if (smallest != nullptr) *smallest = works << 20;
  const std::string sizes = fmt::format("{} beside {} for the largest piece of the weights",
                                        FormatBytes(rest), FormatBytes(least));
  return OutOfMemory(fmt::format(
      "this run does not fit {}: it takes {}. The smallest limit that works is --memory {}MiB; {}",
      FormatBytes(limit_bytes), sizes, works,
      request.pass
          ? "shorter rows, a lower --rank or --head-lora-rank make it smaller"
          : "shorter rows (--max-seq-len), --batch-size 1 with more --grad-accum, a lower --rank "
            "or --method edge make it smaller"));
}

Status CheckMemory(ExecContext& ctx, const model::Model& model, const MemoryRequest& request,
                   int64_t limit_bytes) {
  EW_ASSIGN(const MemoryEstimate estimate, EstimateMemory(ctx, model, request));
  if (estimate.total() <= limit_bytes) return Status::Ok();
  std::vector<std::string> fitting;
  int64_t smallest = estimate.total();
  for (const Change& change : Alternatives(model, request)) {
    EW_ASSIGN(const MemoryEstimate e, EstimateMemory(ctx, model, change.request));
    smallest = std::min(smallest, e.total());
    if (e.total() > limit_bytes || fitting.size() == 3) continue;
    fitting.push_back(fmt::format("{} ({})", change.what, FormatBytes(e.total())));
  }
  std::string text = fmt::format("tuning takes {}; the limit is {}. ", estimate.ToString(),
                                 FormatBytes(limit_bytes));
  if (fitting.empty()) {
    text += fmt::format("The smallest setting tried takes {}: use a smaller or compressed base",
                        FormatBytes(smallest));
  } else {
    text += fmt::format("Would fit: {}", fmt::join(fitting, "; or "));
  }
  return OutOfMemory(std::move(text));
}

}  // namespace edgewise::tune
