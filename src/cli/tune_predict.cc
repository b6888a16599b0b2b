#include "cli/tune_predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "exec/memory.h"
#include "schedule/check.h"
#include "schedule/cost.h"
#include "schedule/measure.h"
#include "schedule/search.h"
#include "tune/cut_batch.h"
#include "tune/trainer.h"

namespace edgewise::cli {
namespace {

constexpr int64_t kSampledBatches = 32;
constexpr int64_t kReadSample = int64_t{128} << 20;

double TokensOf(const tune::DatasetSource* source) {
  double tokens = 0;
  if (source == nullptr) return 0;
  for (const data::Example& e : source->dataset().examples())
    tokens += static_cast<double>(e.ids.size());
  return tokens;
}

int64_t MicroBatches(const PredictRequest& r, const MeanBatch& batch) {
  return std::max<int64_t>(1, std::llround(static_cast<double>(r.grad_accum) * batch.parts));
}

model::WorkloadOptions OptionsOf(const PredictRequest& r, const MeanBatch& batch) {
  model::WorkloadOptions o;
  o.method = r.method;
  o.tokens = batch.tokens;
  o.supervised = batch.supervised;
  o.document_tokens = batch.document_tokens;
  o.micro_batches = MicroBatches(r, batch);
  o.rank = r.rank;
  o.head_rank = r.head_rank;
  o.last_layers = r.last_layers;
  o.integer_backward = r.integer_backward;
  o.head_skip_below = r.head_skip_below;
  o.head_kept_share = r.head_kept_share;
  o.whole_head = r.whole_head;
  return o;
}

// The bytes that the run will hold in place of those that the description assumes.
Status SetMemory(const PredictRequest& r, const model::Model& model, int64_t split_tokens,
                 plan::Choice choice, plan::Workload* w) {
  choice.layers_in_memory = -1;
  EW_ASSIGN(const tune::MemoryEstimate e, r.memory(split_tokens, choice));
  const int64_t streamed = model.stream() != nullptr ? model.stream()->total_bytes() : 0;
  w->state_bytes = e.trainable + e.gradients + e.optimizer;
  w->scratch_bytes = e.scratch;
  w->micro_bytes = 0;
  const int64_t pieces = w->kept_bytes(), layers = std::max<int64_t>(w->kept_layers(), 1);
  w->micro_bytes = std::max<int64_t>(0, e.activations - pieces);
  if (r.spill != schedule::Use::kNever) {
    choice.layers_in_memory = 0;
    EW_ASSIGN(const tune::MemoryEstimate none, r.memory(split_tokens, choice));
    w->micro_bytes = none.activations;
    w->slot_bytes = none.scratch - e.scratch;
    const int64_t piece = (e.activations - none.activations) / layers;
    for (plan::Stage& s : w->stages) {
      if (s.kept_bytes > 0) s.kept_bytes = piece;
    }
    w->filled = std::min(1.0, static_cast<double>(pieces) /
                                  static_cast<double>(std::max<int64_t>(piece * layers, 1)));
  }
  // Norms and biases are always there.
  w->runtime_bytes = e.runtime + (streamed > 0 ? model.weight_bytes() - streamed : 0);
  return Status::Ok();
}

double Forward(const plan::Device& device, const plan::Workload& w) {
  double seconds = 0;
  for (const plan::Stage& s : w.stages) {
    // The head's gradient is the half of it.
    const bool head = s.name.starts_with("head");
    if (!s.backward) seconds += schedule::CostOf(device, s).seconds * (head ? 0.5 : 1);
  }
  return seconds;
}

// What a teacher adds to a step.
double TeacherSeconds(const PredictRequest& r, const MeanBatch& batch, const plan::Device& device,
                      const plan::Workload& w) {
  if (r.teacher_seconds <= 0) return 0;
  const auto tokens = static_cast<double>(batch.tokens);
  double head = 0;
  for (const plan::Stage& s : w.stages) {
    if (s.name == "head") head += schedule::CostOf(device, s).seconds;
  }
  return static_cast<double>(MicroBatches(r, batch)) *
         (r.teacher_seconds * tokens + std::max(0.0, r.teacher_head_seconds * tokens - head));
}

// Whether smaller pieces of the MLP than the request's may be chosen.
bool SmallerPieces(const model::Model& model, const PredictRequest& r) {
  return model.stream() != nullptr && r.memory_limit > 0;
}

Result<plan::Plan> PlanOf(const model::Model& model, const PredictRequest& r,
                          const MeanBatch& batch, const StepKind& kind, const plan::Device& device,
                          schedule::SearchOptions* options) {
  const schedule::DescribeFn describe = [&](const plan::Choice& choice) -> Result<plan::Workload> {
    model::WorkloadOptions o = OptionsOf(r, batch);
    o.tokens = choice.tokens;
    o.micro_batches = choice.micro_batches;
    o.recompute = choice.recompute;
    o.mlp_tokens = choice.mlp_tokens;
    o.window = kind.window;
    o.trunk = kind.trunk;
    EW_ASSIGN(plan::Workload w, model::DescribeStep(model.config(), &model, o));
    EW_RETURN_IF_ERROR(SetMemory(r, model, batch.split_tokens, choice, &w));
    return w;
  };
  schedule::SearchOptions& o = *options;
  o.memory_limit = model.stream() != nullptr ? r.memory_limit : 0;
  o.max_tokens = batch.tokens;
  o.tokens = batch.tokens * MicroBatches(r, batch);
  o.split_batches = false;
  o.uncertainty = schedule::kMeasuredUncertainty;
  o.spill = model.stream() != nullptr ? r.spill : schedule::Use::kNever;
  o.spill_read_gbps = r.spill_read_gbps;
  o.group = r.group;
  if (!r.may_recompute) o.recompute = {r.recompute};
  o.mlp_tokens = r.mlp_tokens;
  o.smaller_pieces = SmallerPieces(model, r);
  EW_ASSIGN(plan::Plan plan, schedule::Search(device, describe, o));
  EW_RETURN_IF_ERROR(schedule::CheckPlan(plan));
  return plan;
}

// Half of what is left: the process holds more by the time the operations are measured.
int64_t Room(const PredictRequest& r) {
  if (r.memory_limit <= 0) return 0;
  return std::max<int64_t>(1, (r.memory_limit - ReadProcessMemory().rss_bytes) / 2);
}

// Every operation of the steps, as they come where the MLPs are kept and in each size of pieces.
Status Measure(ExecContext& ctx, const model::Model& model, const PredictRequest& r,
               const MeanBatch& batch, plan::Device* device) {
  for (const StepKind& kind : r.kinds) {
    model::WorkloadOptions o = OptionsOf(r, batch);
    o.window = kind.window;
    o.trunk = kind.trunk;
    if (r.may_recompute || r.recompute == plan::Recompute::kNone) {
      EW_ASSIGN(const plan::Workload w, model::DescribeStep(model.config(), &model, o));
      EW_RETURN_IF_ERROR(schedule::MeasureMissing(ctx, w, device, Room(r)));
    }
    if (!r.may_recompute && r.recompute == plan::Recompute::kNone) continue;
    o.recompute = plan::Recompute::kLayer;
    for (const int64_t mlp_tokens : plan::MlpPieces(r.mlp_tokens, batch.tokens)) {
      if (mlp_tokens < r.mlp_tokens && !SmallerPieces(model, r)) break;
      o.mlp_tokens = mlp_tokens;
      EW_ASSIGN(const plan::Workload w, model::DescribeStep(model.config(), &model, o));
      EW_RETURN_IF_ERROR(schedule::MeasureMissing(ctx, w, device, Room(r)));
    }
  }
  return Status::Ok();
}

struct PlannedSteps {
  MeanBatch batch;
  plan::Plan plan;  // of the kind with the most steps
  schedule::SearchOptions search;
  double steps = 0;
  double seconds = std::numeric_limits<double>::infinity();  // mean of a step
  double forward = 0;                                        // of a micro-batch
};

Status PlanSteps(const model::Model& model, const PredictRequest& r, const plan::Device& device,
                 PlannedSteps* out) {
  const MeanBatch& batch = out->batch;
  double seconds = 0, forward = 0, steps = 0, most = 0;
  for (const StepKind& kind : r.kinds) {
    EW_ASSIGN(plan::Plan plan, PlanOf(model, r, batch, kind, device, &out->search));
    seconds +=
        kind.steps * (plan.predicted_seconds + TeacherSeconds(r, batch, device, plan.workload));
    forward += kind.steps * Forward(device, plan.workload);
    steps += kind.steps;
    if (kind.steps > most) {
      most = kind.steps;
      out->plan = std::move(plan);
    }
  }
  if (steps > 0) {
    seconds /= steps;
    forward /= steps;
  }
  // The plan has a whole number of parts.
  const double parts = static_cast<double>(r.grad_accum) * batch.parts;
  out->seconds = seconds * parts / static_cast<double>(MicroBatches(r, batch));
  out->forward = forward;
  out->steps = steps;
  return Status::Ok();
}

// Cuts micro-batches further where that is clearly faster than `steps`, or fits alone.
Status CutFurther(ExecContext& ctx, const model::Model& model, const PredictRequest& request,
                  plan::Device* device, PlannedSteps* steps) {
  PredictRequest r = request;
  r.may_recompute = r.split_may_recompute;
  if (r.may_recompute) r.recompute = plan::Recompute::kNone;
  r.group = r.split_group;
  // The order of sums is another one already where they are cut already.
  const double clearly = r.split_tokens > 0 ? schedule::kMeasuredUncertainty : schedule::kClearly;
  const double wanted = steps->seconds * (1 - clearly);
  PlannedSteps best;
  for (const int64_t split : r.splits) {
    PlannedSteps one;
    EW_ASSIGN(one.batch, MeanBatchOf(*r.data.train, split));
    // At the rates of larger ones: only what could be taken is measured.
    const Status status = PlanSteps(model, r, *device, &one);
    if (status.code() == StatusCode::kOutOfMemory) continue;
    EW_RETURN_IF_ERROR(status);
    if (one.seconds < wanted && one.seconds < best.seconds * (1 - schedule::kMeasuredUncertainty)) {
      best = std::move(one);
    }
  }
  if (best.batch.split_tokens == 0) return Status::Ok();
  EW_RETURN_IF_ERROR(Measure(ctx, model, r, best.batch, device));
  EW_RETURN_IF_ERROR(PlanSteps(model, r, *device, &best));
  if (best.seconds < wanted) *steps = std::move(best);
  return Status::Ok();
}

}  // namespace

schedule::Use ParseUse(std::string_view name) {
  return name == "never"    ? schedule::Use::kNever
         : name == "always" ? schedule::Use::kAlways
                            : schedule::Use::kAuto;
}

Result<int64_t> ParseOrder(std::string_view text, std::string_view searched) {
  if (text == searched) return 0;
  if (text == "row") return 1;
  if (text == "column") return std::numeric_limits<int64_t>::max();
  int64_t group = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), group);
  if (error == std::errc() && end == text.data() + text.size() && group > 0) return group;
  return InvalidArgument(
      fmt::format("'{}': {}, row, column or the micro-batches of a group", text, searched));
}

Result<MeanBatch> MeanBatchOf(tune::DatasetSource& source, int64_t split_tokens) {
  const int64_t batches = source.batches_per_epoch(), sampled = std::min(batches, kSampledBatches);
  double tokens = 0, supervised = 0, squares = 0, parts = 0;
  for (int64_t i = 0; i < sampled; ++i) {
    EW_ASSIGN(const TokenBatch b, source.Get(0, i * batches / sampled));
    tokens += static_cast<double>(b.size());
    supervised += static_cast<double>(tune::CountSupervised(b));
    parts += static_cast<double>(tune::CutBatch(b, split_tokens).size());
    for (int64_t t = 0, first = 0; t < b.size(); ++t) {
      const bool last = t + 1 == b.size() ||
                        b.first_key[static_cast<size_t>(t + 1)] == static_cast<int32_t>(t + 1);
      if (!last) continue;
      const auto length = static_cast<double>(t + 1 - first);
      squares += length * length;
      first = t + 1;
    }
  }
  MeanBatch mean;
  tokens = std::max(tokens, 1.0);
  mean.tokens = std::max<int64_t>(1, static_cast<int64_t>(tokens / std::max(parts, 1.0) + 0.5));
  mean.split_tokens = split_tokens;
  mean.parts = parts / static_cast<double>(std::max<int64_t>(sampled, 1));
  mean.supervised = supervised / tokens;
  mean.document_tokens = std::max<int64_t>(1, static_cast<int64_t>(squares / tokens + 0.5));
  return mean;
}

Result<RunPrediction> PredictRun(ExecContext& ctx, const model::Model& model,
                                 const PredictRequest& r) {
  PlannedSteps planned;
  EW_ASSIGN(planned.batch, MeanBatchOf(*r.data.train, r.split_tokens));
  plan::Device device = schedule::BareDevice(ctx, Room(r));
  if (model.stream() != nullptr) {
    // Once to fill the page cache where it is used, which the steps will find full.
    EW_RETURN_IF_ERROR(model.stream()->MeasureRead(kReadSample).status());
    EW_ASSIGN(const model::ReadRate rate, model.stream()->MeasureRead(kReadSample));
    if (rate.gbps > 0) device.levels.back().read_gbps = rate.gbps;
    device.levels.back().processors = rate.processors;
  }
  if (r.spill_write_gbps > 0) device.levels.back().write_gbps = r.spill_write_gbps;
  EW_RETURN_IF_ERROR(Measure(ctx, model, r, planned.batch, &device));
  if (r.measured) r.measured(planned.batch.tokens);
  const Status status = PlanSteps(model, r, device, &planned);
  if (status.code() != StatusCode::kOutOfMemory || r.splits.empty()) EW_RETURN_IF_ERROR(status);
  if (!r.splits.empty()) EW_RETURN_IF_ERROR(CutFurther(ctx, model, r, &device, &planned));
  if (planned.seconds == std::numeric_limits<double>::infinity()) return status;
  const MeanBatch& batch = planned.batch;
  RunPrediction out;
  out.split_tokens = batch.split_tokens;
  out.plan = std::move(planned.plan);
  out.search = planned.search;
  out.steps = planned.steps;
  out.step_seconds = planned.seconds;
  const auto per_token = [&](double seconds) {
    return seconds / static_cast<double>(batch.tokens);
  };
  out.validation_seconds = per_token(planned.forward) * TokensOf(r.data.valid.get()) *
                           static_cast<double>(r.validations);
  if (r.cached_layers > 0) {
    model::WorkloadOptions o = OptionsOf(r, batch);
    EW_ASSIGN(const plan::Workload trunk,
              model::DescribeForward(model.config(), &model, {0, r.cached_layers}, o));
    EW_RETURN_IF_ERROR(schedule::MeasureMissing(ctx, trunk, &device, Room(r)));
    out.trunk_seconds = per_token(Forward(device, trunk)) *
                        (TokensOf(r.data.train.get()) + TokensOf(r.data.valid.get()));
  }
  out.seconds = out.steps * out.step_seconds + out.trunk_seconds + out.validation_seconds;
  out.device = std::move(device);
  return out;
}

Status Rescale(double factor, RunPrediction* p) {
  for (plan::KernelRate& rate : p->device.kernels) rate.gops /= factor;
  EW_ASSIGN(plan::Plan plan,
            schedule::Evaluate(p->device, p->plan.workload, p->plan.choice, p->search));
  plan.candidates = p->plan.candidates;
  plan.seed = p->plan.seed;
  EW_RETURN_IF_ERROR(schedule::CheckPlan(plan));
  p->step_seconds *= plan.predicted_seconds / std::max(p->plan.predicted_seconds, 1e-9);
  p->trunk_seconds *= factor;
  p->validation_seconds *= factor;
  p->seconds = p->steps * p->step_seconds + p->trunk_seconds + p->validation_seconds;
  p->plan = std::move(plan);
  return Status::Ok();
}

}  // namespace edgewise::cli
