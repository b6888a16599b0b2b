#include "cli/tune_predict.h"

#include <algorithm>

#include "exec/memory.h"
#include "schedule/check.h"
#include "schedule/cost.h"
#include "schedule/measure.h"
#include "schedule/search.h"
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

model::WorkloadOptions OptionsOf(const PredictRequest& r, const MeanBatch& batch) {
  model::WorkloadOptions o;
  o.method = r.method;
  o.tokens = batch.tokens;
  o.supervised = batch.supervised;
  o.document_tokens = batch.document_tokens;
  o.micro_batches = r.grad_accum;
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
Status SetMemory(const PredictRequest& r, const model::Model& model, bool recompute,
                 plan::Workload* w) {
  EW_ASSIGN(const tune::MemoryEstimate e, r.memory(recompute, -1));
  const int64_t streamed = model.stream() != nullptr ? model.stream()->total_bytes() : 0;
  w->state_bytes = e.trainable + e.gradients + e.optimizer;
  w->scratch_bytes = e.scratch;
  w->micro_bytes = 0;
  const int64_t pieces = w->kept_bytes(), layers = std::max<int64_t>(w->kept_layers(), 1);
  w->micro_bytes = std::max<int64_t>(0, e.activations - pieces);
  if (r.spill != schedule::Use::kNever) {
    EW_ASSIGN(const tune::MemoryEstimate none, r.memory(recompute, 0));
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
  return static_cast<double>(r.grad_accum) *
         (r.teacher_seconds * tokens + std::max(0.0, r.teacher_head_seconds * tokens - head));
}

Result<plan::Plan> PlanOf(const model::Model& model, const PredictRequest& r,
                          const MeanBatch& batch, const StepKind& kind, const plan::Device& device,
                          schedule::SearchOptions* options) {
  const schedule::DescribeFn describe = [&](int64_t tokens, int64_t micro_batches,
                                            bool recompute) -> Result<plan::Workload> {
    model::WorkloadOptions o = OptionsOf(r, batch);
    o.tokens = tokens;
    o.micro_batches = micro_batches;
    o.recompute = recompute;
    o.window = kind.window;
    o.trunk = kind.trunk;
    EW_ASSIGN(plan::Workload w, model::DescribeStep(model.config(), &model, o));
    EW_RETURN_IF_ERROR(SetMemory(r, model, recompute, &w));
    return w;
  };
  schedule::SearchOptions& o = *options;
  o.memory_limit = model.stream() != nullptr ? r.memory_limit : 0;
  o.max_tokens = batch.tokens;
  o.tokens = batch.tokens * r.grad_accum;
  o.read_processors = r.read_processors;
  o.split_batches = false;
  o.uncertainty = schedule::kMeasuredUncertainty;
  o.spill = model.stream() != nullptr ? r.spill : schedule::Use::kNever;
  o.spill_read_gbps = r.spill_read_gbps;
  o.traversal = r.may_group ? 0 : r.traversal;
  o.recompute = r.may_recompute ? schedule::Recompute::kSearch
                : r.recompute   ? schedule::Recompute::kAlways
                                : schedule::Recompute::kNever;
  EW_ASSIGN(plan::Plan plan, schedule::Search(device, describe, o));
  EW_RETURN_IF_ERROR(schedule::CheckPlan(plan));
  return plan;
}

}  // namespace

schedule::Use ParseUse(std::string_view name) {
  return name == "never"    ? schedule::Use::kNever
         : name == "always" ? schedule::Use::kAlways
                            : schedule::Use::kAuto;
}

Result<MeanBatch> MeanBatchOf(tune::DatasetSource& source) {
  const int64_t batches = source.batches_per_epoch(), sampled = std::min(batches, kSampledBatches);
  double tokens = 0, supervised = 0, squares = 0;
  for (int64_t i = 0; i < sampled; ++i) {
    EW_ASSIGN(const TokenBatch b, source.Get(0, i * batches / sampled));
    tokens += static_cast<double>(b.size());
    supervised += static_cast<double>(tune::CountSupervised(b));
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
  mean.tokens = std::max<int64_t>(
      1, static_cast<int64_t>(tokens / static_cast<double>(std::max<int64_t>(sampled, 1)) + 0.5));
  mean.supervised = supervised / tokens;
  mean.document_tokens = std::max<int64_t>(1, static_cast<int64_t>(squares / tokens + 0.5));
  return mean;
}

Result<RunPrediction> PredictRun(ExecContext& ctx, const model::Model& model,
                                 const PredictRequest& r) {
  EW_ASSIGN(const MeanBatch batch, MeanBatchOf(*r.data.train));
  // Half of what is left: the process holds more by the time the operations are measured.
  const int64_t room =
      r.memory_limit > 0
          ? std::max<int64_t>(1, (r.memory_limit - ReadProcessMemory().rss_bytes) / 2)
          : 0;
  plan::Device device = schedule::BareDevice(ctx, room);
  if (model.stream() != nullptr) {
    // Once to fill the page cache where it is used, which the steps will find full.
    EW_RETURN_IF_ERROR(model.stream()->MeasureRead(kReadSample).status());
    EW_ASSIGN(const double gbps, model.stream()->MeasureRead(kReadSample));
    if (gbps > 0) device.levels.back().read_gbps = gbps;
  }
  if (r.spill_write_gbps > 0) device.levels.back().write_gbps = r.spill_write_gbps;
  // Recomputation adds no operation that is not in the forward pass.
  for (const StepKind& kind : r.kinds) {
    model::WorkloadOptions o = OptionsOf(r, batch);
    o.window = kind.window;
    o.trunk = kind.trunk;
    EW_ASSIGN(const plan::Workload w, model::DescribeStep(model.config(), &model, o));
    EW_RETURN_IF_ERROR(schedule::MeasureMissing(ctx, w, &device));
  }
  if (r.measured) r.measured(batch.tokens);
  RunPrediction out;
  double steps = 0, most = 0, forward = 0;
  for (const StepKind& kind : r.kinds) {
    EW_ASSIGN(plan::Plan plan, PlanOf(model, r, batch, kind, device, &out.search));
    out.step_seconds +=
        kind.steps * (plan.predicted_seconds + TeacherSeconds(r, batch, device, plan.workload));
    forward += kind.steps * Forward(device, plan.workload);
    steps += kind.steps;
    if (kind.steps > most) {
      most = kind.steps;
      out.plan = std::move(plan);
    }
  }
  if (steps > 0) {
    out.step_seconds /= steps;
    forward /= steps;
  }
  const auto per_token = [&](double seconds) {
    return seconds / static_cast<double>(batch.tokens);
  };
  out.validation_seconds =
      per_token(forward) * TokensOf(r.data.valid.get()) * static_cast<double>(r.validations);
  if (r.cached_layers > 0) {
    model::WorkloadOptions o = OptionsOf(r, batch);
    EW_ASSIGN(const plan::Workload trunk,
              model::DescribeForward(model.config(), &model, {0, r.cached_layers}, o));
    EW_RETURN_IF_ERROR(schedule::MeasureMissing(ctx, trunk, &device));
    out.trunk_seconds = per_token(Forward(device, trunk)) *
                        (TokensOf(r.data.train.get()) + TokensOf(r.data.valid.get()));
  }
  out.steps = steps;
  out.seconds = steps * out.step_seconds + out.trunk_seconds + out.validation_seconds;
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
