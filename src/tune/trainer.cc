#include "tune/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "exec/memory.h"
#include "kernels/elementwise.h"
#include "tune/cut_batch.h"

namespace edgewise::tune {
namespace {

// Beyond this norm the squares in AdamW's second moment leave the range of float.
constexpr double kMaxUsableNorm = 1e18;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int64_t CountSupervised(const TokenBatch& batch) {
  return std::count_if(batch.targets.begin(), batch.targets.end(),
                       [](int32_t t) { return t >= 0; });
}

struct Trainer::Window {
  std::vector<TokenBatch> batches;
  int64_t tokens = 0, supervised = 0;
};

struct Trainer::StepOutcome {
  LossSum loss;
  double grad_norm = 0, lr = 0;
  bool applied = false;
  bool empty = false;        // no token with a label: nothing to learn
  bool interrupted = false;  // the step was given up; nothing has changed
  Status failure;            // the same, because of this
};

Trainer::Trainer(ExecContext& ctx, Env& env, Method& method, TrainOptions options,
                 TrainInputs inputs, TrainHooks hooks)
    : ctx_(ctx),
      env_(env),
      method_(method),
      options_(std::move(options)),
      inputs_(std::move(inputs)),
      hooks_(std::move(hooks)),
      state_(result_.state) {}

Trainer::~Trainer() = default;

double Trainer::Elapsed() const { return Now() - start_; }

Status Trainer::Run() {
  start_ = Now();
  EW_RETURN_IF_ERROR(Prepare());
  seconds_before_ = state_.seconds;
  Status status = Loop();
  if (status.ok()) status = Finish();
  result_.seconds_here = Elapsed();
  result_.tokens_per_s =
      step_seconds_ > 0 ? static_cast<double>(result_.tokens_here) / step_seconds_ : 0;
  return status;
}

Result<Trainer::Window> Trainer::Load(int64_t step) {
  Window w;
  const int64_t per_epoch = inputs_.train->batches_per_epoch();
  const int64_t begin = step * options_.grad_accum;
  const int64_t end = std::min(begin + options_.grad_accum, total_micro_);
  for (int64_t g = begin; g < end; ++g) {
    EW_ASSIGN(TokenBatch batch, inputs_.train->Get(g / per_epoch, g % per_epoch));
    w.tokens += batch.size();
    w.supervised += CountSupervised(batch);
    for (TokenBatch& part : CutBatch(std::move(batch), options_.split_tokens)) {
      w.batches.push_back(std::move(part));
    }
  }
  return w;
}

Result<double> Trainer::RateAt(int64_t step) {
  const auto [begin, end] = method_.RatePhase(step, result_.total_steps);
  if (begin == 0 && end == result_.total_steps) return schedule_->At(step);
  EW_ASSIGN(const LrSchedule phase, LrSchedule::Create(options_.lr, end - begin));
  return phase.At(step - begin);
}

Result<Trainer::StepOutcome> Trainer::DoStep(const Window& window) {
  StepOutcome out;
  EW_ASSIGN(out.lr, RateAt(state_.step));
  std::vector<int32_t> active;
  const double begin = Now();
  EW_RETURN_IF_ERROR(method_.BeginStep(state_.step, &active));
  begin_seconds_ = Now() - begin;
  MicroContext context{
      .step = state_.step,
      .micro = 0,
      .seed = options_.seed,
      .grad_scale = window.supervised > 0 ? 1.0 / static_cast<double>(window.supervised) : 0};
  out.empty = window.supervised == 0;
  bool finite = !out.empty;
  // Groups of micro-batches with something to learn.
  const auto count = static_cast<int64_t>(window.batches.size());
  const int64_t group = std::max<int64_t>(method_.group(), 1);
  for (int64_t next = 0; finite && next < count;) {
    std::vector<const TokenBatch*> batches;
    std::vector<int64_t> micros;
    for (; next < count && static_cast<int64_t>(batches.size()) < group; ++next) {
      const TokenBatch& batch = window.batches[static_cast<size_t>(next)];
      if (CountSupervised(batch) == 0) continue;
      batches.push_back(&batch);
      micros.push_back(next);
    }
    std::vector<LossSum> losses;
    if (!batches.empty()) {
      out.failure = method_.Micros(batches, micros, context, &losses);
      if (!out.failure.ok()) return out;
    }
    for (const LossSum& loss : losses) {
      if (!finite) break;
      out.loss.loss_sum += loss.loss_sum;
      out.loss.tokens += loss.tokens;
      out.loss.correct += loss.correct;
      finite = std::isfinite(loss.loss_sum);
    }
    if (StopRequested() && next < count) {
      out.interrupted = true;
      return out;
    }
  }
  if (finite) {
    out.grad_norm = optimizer_->GradNorm(ctx_, active);
    const double coefficient = optimizer_->ClipCoefficient(out.grad_norm);
    if (std::isfinite(out.grad_norm) && out.grad_norm * coefficient < kMaxUsableNorm) {
      optimizer_->Step(ctx_, active, out.lr, coefficient);
      out.applied = true;
    }
  }
  EW_RETURN_IF_ERROR(method_.EndStep(state_.step, out.loss, out.applied));
  return out;
}

void Trainer::Account(const Window& window, const StepOutcome& outcome, double seconds) {
  if (outcome.applied) {
    state_.loss_sum += outcome.loss.loss_sum;
    state_.loss_tokens += outcome.loss.tokens;
    state_.last_loss = outcome.loss.mean();
    state_.skipped_in_row = 0;
  } else if (!outcome.empty) {
    if (state_.skipped_in_row == 0) first_bad_step_ = state_.step + 1;
    ++state_.skipped_in_row;
    ++state_.skipped_total;
  }
  ++state_.step;
  dirty_ = true;
  state_.tokens += window.tokens;
  state_.supervised_tokens += window.supervised;
  ++result_.steps_here;
  result_.tokens_here += window.tokens;
  step_seconds_ += seconds;
  settled_seconds_ += seconds - begin_seconds_;
  result_.step_seconds =
      settled_seconds_ / static_cast<double>(std::max<int64_t>(result_.steps_here - 1, 1));
  if (result_.steps_here == 1) settled_seconds_ = 0;
  const ProcessMemory memory = ReadProcessMemory();
  state_.peak_rss_bytes = std::max(state_.peak_rss_bytes, memory.peak_rss_bytes);
  state_.seconds = seconds_before_ + Elapsed();

  report::StepEvent event;
  event.step = state_.step;
  event.total_steps = result_.total_steps;
  const int64_t micros = std::min(state_.step * options_.grad_accum, total_micro_);
  event.epoch =
      static_cast<double>(micros) / static_cast<double>(inputs_.train->batches_per_epoch());
  event.loss = outcome.loss.mean();
  event.lr = outcome.lr;
  event.grad_norm = outcome.grad_norm;
  event.supervised_tokens = window.supervised;
  event.tokens = window.tokens;
  event.tokens_total = state_.tokens;
  event.tokens_per_s = seconds > 0 ? static_cast<double>(window.tokens) / seconds : 0;
  event.elapsed_s = Elapsed();
  event.rss_bytes = memory.rss_bytes;
  event.memory = method_.Held();
  event.memory.optimizer = optimizer_->state_bytes();
  event.exit = method_.CurrentExit();
  event.skipped = !outcome.applied && !outcome.empty;
  event.skipped_total = state_.skipped_total;
  Emit(event);
}

Status Trainer::Loop() {
  // A validation may have been cut short by the interruption that this run resumes from.
  if (state_.step > 0) EW_RETURN_IF_ERROR(AfterStep());
  while (state_.step < result_.total_steps) {
    if (StopRequested()) return Stop(Status(StatusCode::kInterrupted, "stopped on request"));
    EW_ASSIGN(const Window window, Load(state_.step));
    const double begin = Now();
    EW_ASSIGN(const StepOutcome outcome, DoStep(window));
    if (outcome.interrupted) continue;
    // The disk that weights or activations are on, say: what was learned until here is saved.
    if (!outcome.failure.ok()) return Stop(outcome.failure);
    Account(window, outcome, Now() - begin);
    EW_RETURN_IF_ERROR(AfterStep());
    if (state_.skipped_in_row >= options_.nonfinite_patience) {
      return Stop(BadInput(fmt::format(
          "loss or gradient not finite in {} steps in a row, from step {} on: lower the learning "
          "rate, clip gradients, or check the data of those steps",
          state_.skipped_in_row, first_bad_step_)));
    }
  }
  if (valid_cut_short_) return Stop(Status(StatusCode::kInterrupted, "stopped on request"));
  return Status::Ok();
}

Status Trainer::AfterStep() {
  const auto due = [&](int64_t every) { return every > 0 && state_.step % every == 0; };
  const bool last = state_.step == result_.total_steps;
  bool best = false;
  if (inputs_.valid != nullptr && state_.valid_step != state_.step &&
      (due(options_.eval_every) || last)) {
    EW_RETURN_IF_ERROR(Validate(&best));
  }
  const bool asked = hooks_.save_request != nullptr && hooks_.save_request->exchange(false);
  // A skipped step changes no parameter: the state that the next good step starts from is kept.
  if (best || asked || last || due(options_.save_every)) Save();
  return Status::Ok();
}

Status Trainer::Validate(bool* best) {
  const double begin = Now();
  LossSum sum;
  std::vector<LossSum> exits;
  for (int64_t i = 0; i < inputs_.valid->batches_per_epoch(); ++i) {
    EW_ASSIGN(TokenBatch whole, inputs_.valid->Get(0, i));
    for (const TokenBatch& batch : CutBatch(std::move(whole), options_.split_tokens)) {
      if (CountSupervised(batch) == 0) continue;
      EW_ASSIGN(const LossSum loss, method_.Evaluate(batch));
      sum.loss_sum += loss.loss_sum;
      sum.tokens += loss.tokens;
      sum.correct += loss.correct;
      EW_ASSIGN(const std::vector<LossSum> alone, method_.EvaluateExits(batch));
      exits.resize(alone.size());
      for (size_t e = 0; e < alone.size(); ++e) {
        exits[e].loss_sum += alone[e].loss_sum;
        exits[e].tokens += alone[e].tokens;
      }
    }
    // An interrupted validation decides nothing: the step is validated again on resume.
    valid_cut_short_ = StopRequested() && i + 1 < inputs_.valid->batches_per_epoch();
    if (valid_cut_short_) return Status::Ok();
  }
  if (sum.tokens == 0) return BadInput("the validation data has no supervised token");
  report::ValidEvent event{.step = state_.step, .loss = sum.mean(), .tokens = sum.tokens};
  *best = state_.step > 0 && std::isfinite(event.loss) &&
          (!state_.best_loss || event.loss < *state_.best_loss);
  event.best = *best;
  for (const LossSum& exit : exits) event.exits.push_back(exit.mean());
  state_.valid_loss = event.loss;
  state_.valid_step = state_.step;
  dirty_ = true;
  if (state_.step == 0) state_.start_valid_loss = event.loss;
  if (hooks_.evaluate) {
    EW_ASSIGN(event.score, hooks_.evaluate(state_.step));
    event.score_name = hooks_.evaluate_name;
  }
  event.seconds = Now() - begin;
  Emit(event);
  return Status::Ok();
}

bool Trainer::ParametersFinite() {
  for (const model::Parameter& p : method_.params()) {
    if (!kernels::AllFinite(ctx_, p.count, p.value)) return false;
  }
  return true;
}

RunDescription Trainer::Describe(const char* status) const {
  RunDescription d;
  d.status = status;
  d.version = inputs_.version;
  d.base_path = inputs_.base_path;
  d.method = method_.name();
  d.identity = identity_;
  d.total_steps = result_.total_steps;
  d.seed = options_.seed;
  d.state = state_;
  d.exported = result_.exported;
  d.exported_step = result_.exported_step;
  d.extra_json = inputs_.extra_json;
  d.step_seconds = result_.step_seconds;
  return d;
}

void Trainer::Emit(const report::Event& event) {
  if (hooks_.on_event) hooks_.on_event(event);
  if (metrics_ == nullptr) return;
  const Status status = metrics_->Append(event);
  const bool first = !status.ok() && !metrics_failed_;
  metrics_failed_ = !status.ok();
  if (first) Warn(fmt::format("metrics are not recorded: {}", status.message()));
}

void Trainer::Warn(std::string message) {
  Emit(report::WarningEvent{.step = state_.step, .message = std::move(message)});
}

}  // namespace edgewise::tune
