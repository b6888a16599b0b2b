#include "cli/tune_fit.h"

#include <fmt/format.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cmath>

#include "base/units.h"
#include "exec/memory.h"
#include "io/env.h"
#include "model/weight_stream.h"
#include "schedule/measure.h"
#include "tune/cut_batch.h"
#include "tune/hidden_codec.h"

namespace edgewise::cli {
namespace {

// What a run pages in and allocates after planning: code of the optimiser and of saving, metrics,
// the lists of a batch. Seen: 1 to 2 MiB.
constexpr int64_t kLater = int64_t{3} << 20;
// More of a run that goes on: its checkpoint's lists and the code that reads and checks it. Seen:
// half a MiB.
constexpr int64_t kResumed = int64_t{1} << 20;
// Blocks of this size and more go back to the system when they are freed.
constexpr int kMapFrom = 128 << 10;
// Of a thread, and of all: what a kernel may keep beyond what it kept when it was measured.
constexpr int64_t kScratchMargin = int64_t{512} << 10, kMostScratchMargin = int64_t{4} << 20;

// Written and read to see how fast activations would pass.
constexpr int64_t kSpillSample = int64_t{16} << 20;
// A thread, its stack, and code that is paged in for them.
constexpr int64_t kSpillThread = int64_t{512} << 10;

// Resident now, freed memory given back, what the kernels keep for themselves left out.
int64_t Resident(const ExecContext& ctx) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  return ReadProcessMemory().rss_bytes - ctx.scratch_bytes();
}

}  // namespace

Status TuneFit::Begin(const tune::ModelMethodOptions& method, int64_t asked, int64_t recorded) {
#ifdef __GLIBC__
  // A fixed threshold, which does not rise as large blocks come and go, and one heap for all
  // threads: what is resident stays what is in use.
  if (asked > 0) {
    mallopt(M_MMAP_THRESHOLD, kMapFrom);
    mallopt(M_TRIM_THRESHOLD, kMapFrom);
    mallopt(M_ARENA_MAX, 1);
  }
#endif
  plan_.model = flags_.model;
  plan_.method = flags_.method;
  plan_.base_parameters = model_.config().parameter_count();
  plan_.batches_per_epoch = data_.train->batches_per_epoch();
  plan_.batch_tokens = data_.max_tokens;
  plan_.steps = flags_.max_steps;
  if (plan_.steps == 0) {
    const double micro = flags_.epochs * static_cast<double>(plan_.batches_per_epoch);
    plan_.steps =
        static_cast<int64_t>(std::ceil(std::ceil(micro) / static_cast<double>(flags_.grad_accum)));
  }
  request_.method = method;
  asked_recompute_ = method.recompute;
  request_.max_tokens = data_.max_tokens;
  request_.runtime_bytes = Resident(ctx_) + kLater;
  // Counted as weights. (Masters of all weights take the place of none.)
  if (method.kind != tune::MethodKind::kFull) {
    request_.runtime_bytes -= model_.allocated_bytes();
  }
  plan_.memory_limit = asked > 0 ? asked : DetectMemoryLimit().bytes;
  // RLIMIT_DATA also counts what is mapped and never touched, by libraries and as stacks.
  if (const int64_t data = DataLimitBytes(); asked > 0 && data > 0 && data < plan_.memory_limit) {
    plan_.memory_limit = data;
    data_limit_ = true;
  }
  plan_.recompute = method.recompute;
  plan_.mlp_tokens = method.mlp_rows;
  const bool in_memory = PosixEnv().IsInMemory(SpillDirectory());
  if (flags_.spill == "always" && in_memory) {
    return InvalidArgument(
        fmt::format("--spill always: {} lies in memory (tmpfs), not on a disk; name another -o, or "
                    "--spill never",
                    SpillDirectory()));
  }
  request_.may_spill = model_.stream() != nullptr && flags_.spill != "never" && !in_memory;
  EW_RETURN_IF_ERROR(BeginSplit(recorded));
  if (recorded_) request_.runtime_bytes += kResumed;
  // Method edge is checked when its windows are known.
  may_shrink_ = WindowsAreFree();
  if (flags_.method == "edge") return Status::Ok();
  EW_ASSIGN(plan_.memory, tune::EstimateMemory(ctx_, model_, request_));
  plan_.trainable_parameters = method.kind == tune::MethodKind::kFull
                                   ? plan_.base_parameters
                                   : plan_.memory.trainable / static_cast<int64_t>(sizeof(float));
  if (plan_.memory_limit <= 0) return Status::Ok();
  return FitCut();
}

Status TuneFit::AddWindows(tune::EdgeMethod* edge, bool cached, int64_t beside) {
  request_.runtime_bytes += beside - beside_;
  beside_ = beside;
  cached_ = cached;
  complete_ = false;
  request_.used_weights = 0;
  if (may_cut_) SetSplit(0);
  request_.whole_head = edge->TakesWholeHead();
  request_.method.recompute = asked_recompute_;
  request_.method.mlp_rows = model::kMlpRows;
  edge_ = edge;
  request_.pass = [this](const tune::ModelMethodOptions& m, int64_t max_tokens) {
    edge_->SetRecompute(m.recompute, m.mlp_rows);
    edge_->SetSpill(m.layers_in_memory, nullptr);
    model::PassMemory memory = instead_.empty() ? edge_->MemoryNeeded(max_tokens)
                                                : edge_->MemoryNeeded(max_tokens, instead_);
    // Through which a document's states go into the cache and come from it.
    const tune::Exit& top = instead_.empty() ? edge_->exits().back() : instead_.back();
    if (cached_ && top.begin > 0) {
      memory.scratch +=
          max_tokens * tune::EncodedRowBytes(edge_->options().trunk.codec, model_.config().hidden);
    }
    return memory;
  };
  plan_.windows = std::ssize(edge->exits());
  plan_.window_layers = tune::LargestWindow(edge->exits());
  plan_.windows_chosen = may_shrink_ && plan_.windows > 1;
  request_.trained = 0;
  request_.method.layers_in_memory = -1;
  request_.group = 1;
  int64_t largest = 0;
  for (const model::Parameter& p : edge->params()) {
    request_.trained += p.count;
    largest = std::max(largest, p.count * static_cast<int64_t>(sizeof(float)));
  }
  // A run that goes on reads one after the other from its checkpoint, beside everything else.
  if (recorded_) request_.runtime_bytes += largest;
  plan_.trainable_parameters = request_.trained;
  plan_.recompute = asked_recompute_;
  EW_RETURN_IF_ERROR(FitCut());
  EW_RETURN_IF_ERROR(ObeySplit(edge, !may_cut_));
  return complete_ ? Fit() : Status::Ok();
}

// The stream obeys what was planned.
Status TuneFit::Fit() {
  if (model_.stream() == nullptr) {
    EW_ASSIGN(const tune::MemoryFit fit,
              tune::FitMapped(ctx_, model_, request_, plan_.memory_limit, &smallest_));
    plan_.memory = fit.estimate;
    plan_.recompute = request_.method.recompute = fit.recompute;
    plan_.mlp_tokens = request_.method.mlp_rows = fit.mlp_rows;
    return Status::Ok();
  }
  EW_ASSIGN(const tune::MemoryFit fit,
            tune::FitStreamed(ctx_, model_, request_, plan_.memory_limit, &smallest_));
  plan_.memory = fit.estimate;
  plan_.recompute = fit.recompute;
  plan_.mlp_tokens = fit.mlp_rows;
  plan_.layers_in_memory = fit.layers_in_memory;
  plan_.weight_budget = fit.weight_budget;
  plan_.offloaded = fit.offloaded;
  return model_.stream()->SetBudget(fit.weight_budget);
}

std::string TuneFit::SpillDirectory() const {
  std::string directory = flags_.out;
  while (!PosixEnv().IsDirectory(directory)) {
    const std::string parent = DirName(directory);
    if (parent == directory) return ".";
    directory = parent;
  }
  return directory;
}

Status TuneFit::ObeySpill(tune::EdgeMethod* edge) {
  if (plan_.layers_in_memory < 0) {
    spill_.reset();
  } else {
    if (!flags_.dry_run) EW_RETURN_IF_ERROR(PosixEnv().CreateDirs(flags_.out));
    spill_ = std::make_unique<model::ActivationSpill>(PosixEnv(), SpillDirectory());
  }
  if (edge != nullptr) edge->SetSpill(plan_.layers_in_memory, spill_.get());
  return Status::Ok();
}

// Resident beside kernels' scratch and streamed weights.
int64_t TuneFit::Held() const {
  const int64_t streamed = model_.stream() != nullptr ? model_.stream()->resident_bytes() : 0;
  return Resident(ctx_) - streamed;
}

// How much of the head's gradient is left depends on how sure the model is of its tokens, and a
// teacher is another model: one micro-batch tells, which changes nothing that lasts.
Status TuneFit::Probe(tune::EdgeMethod& edge, PredictRequest* request) {
  const tune::EdgeOptions& options = edge.options();
  const bool teacher = options.teacher != nullptr && options.teacher_weight > 0;
  if (request->head_skip_below <= 0 && !teacher) return Status::Ok();
  edge.SetRecompute(plan_.recompute, plan_.mlp_tokens);
  EW_RETURN_IF_ERROR(ObeySpill(&edge));
  EW_ASSIGN(TokenBatch whole, data_.train->Get(0, 0));
  const TokenBatch batch = tune::CutBatch(std::move(whole), plan_.split_tokens).front();
  tune::MicroContext context;
  context.grad_scale = 1.0 / static_cast<double>(std::max<int64_t>(batch.size(), 1));
  // The first touches memory that is not there yet.
  if (teacher) EW_RETURN_IF_ERROR(edge.Micro(batch, context).status());
  const kernels::HeadLossResult before = edge.head_blocks();
  const tune::EdgeTimes began = edge.times();
  EW_RETURN_IF_ERROR(edge.Micro(batch, context).status());
  if (teacher) {
    const tune::EdgeTimes& ended = edge.times();
    const double windows = static_cast<double>(options.windows_per_step);
    const double passes = windows * static_cast<double>(batch.size());
    request->teacher_seconds = (ended.teacher - began.teacher) / passes;
    request->teacher_head_seconds = (ended.pass.head - began.pass.head) / passes;
  }
  // Room for the operands of what is measured next.
  edge.SetGroup(1);
  if (model::WeightStream* stream = model_.stream(); stream != nullptr) {
    stream->Expect({});
    EW_RETURN_IF_ERROR(stream->SetBudget(stream->least_bytes(request_.whole_head)));
  }
  const kernels::HeadLossResult& after = edge.head_blocks();
  const auto blocks = static_cast<double>(after.blocks - before.blocks);
  const auto kept = static_cast<double>(after.dhidden_blocks - before.dhidden_blocks +
                                        after.dhead_blocks - before.dhead_blocks);
  if (request->head_skip_below > 0 && blocks > 0) {
    request->head_kept_share = kept / (options.head_lora_rank > 0 ? 2 * blocks : blocks);
  }
  return Status::Ok();
}

void TuneFit::Grow() {
  const int64_t held = Held();
  request_.runtime_bytes += std::max<int64_t>(0, held - before_);
  before_ = std::max(before_, held);
}

void TuneFit::Settle(int64_t mean_tokens) {
  Grow();
  // Measured with mean batches; the largest ones take that much more.
  const double larger = static_cast<double>(request_.max_tokens) /
                        static_cast<double>(std::max<int64_t>(mean_tokens, 1));
  request_.kernel_scratch =
      static_cast<int64_t>(std::max(larger, 1.0) * static_cast<double>(ctx_.scratch_bytes())) +
      std::min(ctx_.threads() * kScratchMargin, kMostScratchMargin);
}

Status TuneFit::PredictOnce(tune::EdgeMethod* edge) {
  PredictRequest r{data_};
  EW_ASSIGN(r.method, model::ParseWorkloadMethod(flags_.method));
  r.rank = request_.method.lora.r;
  r.last_layers = request_.method.last_layers;
  r.head_skip_below = request_.method.head_skip_below;
  r.recompute = plan_.recompute;
  r.mlp_tokens = request_.method.mlp_rows;
  r.grad_accum = flags_.grad_accum;
  r.split_tokens = plan_.split_tokens;
  r.validations = 1 + (flags_.no_eval_at_start ? 0 : 1) +
                  (flags_.eval_every > 0 ? plan_.steps / flags_.eval_every : 0);
  r.memory_limit = plan_.memory_limit;
  const auto steps = static_cast<double>(plan_.steps);
  // Reading less may be worth computing more.
  const bool asks = asked_recompute_ != plan::Recompute::kNone;
  r.may_recompute = model_.stream() != nullptr && !asks && plan_.offloaded;
  // Weights that are read anyway can be read for several micro-batches at once.
  const bool groups = edge == nullptr || edge->TakesGroups();
  EW_ASSIGN(const int64_t order, ParseOrder(flags_.order));
  if (!groups && order > 1) {
    return InvalidArgument("--order " + flags_.order +
                           ": with --distill, --whole-head or more than one --windows-per-step "
                           "micro-batches go one by one");
  }
  // (Where nothing is read groups would save nothing.)
  const bool reads = model_.stream() != nullptr && plan_.offloaded;
  r.group = groups && (reads || order > 0) ? order : 1;
  // Nothing is gained by cutting what fits as it is, and states that are there would be made anew.
  const bool short_of =
      plan_.offloaded || plan_.recompute != asked_recompute_ || plan_.layers_in_memory >= 0;
  if (cut_to_save_ && model_.stream() != nullptr && short_of && !complete_) {
    r.splits = SmallerCuts();
    r.split_may_recompute = !asks;
    r.split_group = groups ? order : 1;
  }
  if (edge == nullptr) {
    r.kinds = {{{0, -1}, false, steps}};
  } else {
    const tune::EdgeOptions& o = edge->options();
    r.head_skip_below = o.head_skip_below;
    r.head_rank = o.head_lora_rank;
    r.whole_head = request_.whole_head;
    r.integer_backward = o.backward == kernels::BackwardMode::kInteger;
    for (size_t e = 0; e < edge->exits().size(); ++e) {
      const tune::Exit& exit = edge->exits()[e];
      const auto exits = static_cast<int64_t>(edge->exits().size());
      const int64_t windows = o.windows_per_step;  // that follow each other
      double count = steps * static_cast<double>(windows) / static_cast<double>(exits);
      if (o.order != tune::ExitOrder::kAdaptive) {
        count = 0;
        for (int64_t s = 0; s < plan_.steps; ++s) {
          count += (static_cast<int64_t>(e) - edge->ExitAt(s) + exits) % exits < windows ? 1 : 0;
        }
      }
      if (count <= 0) continue;
      r.kinds.push_back({{exit.begin, exit.end}, !cached_, count});
      if (cached_ && !complete_) r.cached_layers = std::max(r.cached_layers, exit.begin);
    }
  }
  r.memory = [&](int64_t split_tokens, const plan::Choice& choice) {
    tune::MemoryRequest request = request_;
    request.max_tokens = TokensOf(split_tokens);
    request.method.recompute = choice.recompute;
    request.method.mlp_rows = choice.mlp_tokens;
    request.method.layers_in_memory = choice.layers_in_memory;
    return tune::EstimateMemory(ctx_, model_, request);
  };
  if (edge != nullptr) EW_RETURN_IF_ERROR(Probe(*edge, &r));
  before_ = Held();
  // Where weights or activations do not fit as they are, the disk may help.
  if (request_.may_spill && (plan_.offloaded || plan_.recompute != plan::Recompute::kNone ||
                             plan_.layers_in_memory >= 0)) {
    const Result<schedule::DiskRates> rates = schedule::MeasureDisk(SpillDirectory(), kSpillSample);
    if (rates.ok()) {
      r.spill = ParseUse(flags_.spill);
      r.spill_write_gbps = rates->write_gbps;
      r.spill_read_gbps = rates->read_gbps;
      request_.runtime_bytes += kSpillThread;
    }
  }
  r.measured = [&](int64_t mean_tokens) { Settle(mean_tokens); };
  kinds_ = r.kinds.size();
  EW_ASSIGN(prediction_, PredictRun(ctx_, model_, r));
  SetSplit(prediction_.split_tokens);
  EW_RETURN_IF_ERROR(ObeySplit(edge, /*settled=*/true));
  // The search has left something, too.
  Grow();
  windows_ = edge != nullptr ? edge->options().windows_per_step : 1;
  SetPrediction();
  const RunPrediction& p = prediction_;
  plan_.candidates = p.plan.candidates;
  if (model_.stream() != nullptr && plan_.memory_limit > 0) {
    request_.method.recompute = p.plan.choice.recompute;
    request_.method.mlp_rows = p.plan.choice.mlp_tokens;
    request_.method.layers_in_memory = p.plan.choice.layers_in_memory;
    request_.group = plan_.group = p.plan.choice.group;
    EW_RETURN_IF_ERROR(Fit());
    // Measuring may have left less room than was planned with.
    if (plan_.layers_in_memory != p.plan.choice.layers_in_memory) {
      prediction_.plan.choice.layers_in_memory = plan_.layers_in_memory;
      EW_RETURN_IF_ERROR(Rescale(1, &prediction_));
      SetPrediction();
    }
  } else {
    EW_RETURN_IF_ERROR(Fit());
    // Measuring has left less room than these times were planned with.
    if (plan_.recompute != r.recompute) return PredictOnce(edge);
  }
  // Where little is to be held, loading and measuring have been the peak.
  const int64_t peak = ReadProcessMemory().peak_rss_bytes;
  if (plan_.memory_limit > 0 && peak > plan_.memory_limit) {
    return OutOfMemory(
        fmt::format("loading the model and measuring the step took {}, the limit is {}; a limit of "
                    "{} works",
                    FormatBytes(peak), FormatBytes(plan_.memory_limit),
                    FormatBytes(peak + (int64_t{1} << 20))));
  }
  plan_.memory.runtime += std::max<int64_t>(0, peak - plan_.memory.total());
  if (edge != nullptr) {
    edge->SetRecompute(plan_.recompute, plan_.mlp_tokens);
    edge->SetGroup(plan_.group);
  }
  EW_RETURN_IF_ERROR(ObeySpill(edge));
  if (spill_ == nullptr) return Status::Ok();
  // Before the run, not in its first step.
  return spill_->Reserve(plan_.spilled_layers * plan_.group,
                         p.plan.workload.slot_bytes / model::ActivationSpill::kSlots);
}

void TuneFit::SetPrediction() {
  const RunPrediction& p = prediction_;
  plan_.predicted_seconds = p.seconds;
  plan_.predicted_step_seconds = p.step_seconds * static_cast<double>(windows_);
  plan_.spilled_layers = p.plan.workload.spilled_layers(p.plan.choice.layers_in_memory);
  plan_.written_bytes = static_cast<double>(p.plan.stored_bytes) * static_cast<double>(windows_);
  plan_.bound = p.plan.streams.load > p.plan.streams.compute ? "disk" : "compute";
}

}  // namespace edgewise::cli
