// What the trainer reads and writes: starting, resuming, saving, the result.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "exec/memory.h"
#include "formats/checkpoint.h"
#include "io/json.h"
#include "tune/trainer.h"

namespace edgewise::tune {
namespace {

std::string CheckpointsDir(const TrainOptions& o) { return JoinPath(o.run_dir, kCheckpointsName); }

bool HoldsRun(Env& env, const TrainOptions& o) {
  return env.Exists(CheckpointsDir(o)) || env.Exists(JoinPath(o.run_dir, kMetricsName));
}

Status ValidateOptions(const TrainOptions& o, const TrainInputs& in) {
  if (o.run_dir.empty()) return InvalidArgument("no output directory given");
  if (in.train == nullptr || in.train->batches_per_epoch() < 1) {
    return BadInput("the training data has no batches");
  }
  if (o.max_steps < 0) return InvalidArgument("max steps must not be negative");
  if (o.max_steps == 0 && !(o.epochs > 0 && o.epochs <= 1e6)) {
    return InvalidArgument(fmt::format("epochs {} is not in (0, 1e6]", o.epochs));
  }
  if (o.max_steps > int64_t{1} << 40) return InvalidArgument("max steps is too large");
  if (o.grad_accum < 1 || o.grad_accum > 1 << 20) {
    return InvalidArgument(
        fmt::format("gradient accumulation {} is not between 1 and 2^20", o.grad_accum));
  }
  if (o.split_tokens < 0) return InvalidArgument("micro-batches cannot be cut to fewer than 0");
  if (o.eval_every < 0 || o.save_every < 0) {
    return InvalidArgument("the intervals for validation and saving must not be negative");
  }
  if (o.save_total_limit < 1) {
    return InvalidArgument("at least one checkpoint has to be kept (save total limit)");
  }
  if (o.nonfinite_patience < 1) return InvalidArgument("the non-finite patience is at least 1");
  return ValidateAdamW(o.adamw);
}

// Every option that decides the arithmetic of a step. Intervals, limits and directories do not.
Result<std::string> OptionsJson(const TrainOptions& o, const Method& method, int64_t total_steps) {
  OrderedJson j;
  EW_ASSIGN(Json method_options, ParseJson(method.OptionsJson()));
  j["method"] = method.name();
  j["method_options"] = method_options;
  j["total_steps"] = total_steps;
  j["grad_accum"] = o.grad_accum;
  if (o.split_tokens > 0) j["split_tokens"] = o.split_tokens;
  j["lr_schedule"] = std::string(LrKindName(o.lr.kind));
  j["learning_rate"] = o.lr.lr;
  j["min_learning_rate"] = o.lr.min_lr;
  if (o.lr.warmup_steps >= 0) {
    j["warmup_steps"] = o.lr.warmup_steps;
  } else {
    j["warmup_ratio"] = o.lr.warmup_ratio;
  }
  j["beta1"] = o.adamw.beta1;
  j["beta2"] = o.adamw.beta2;
  j["epsilon"] = o.adamw.eps;
  j["weight_decay"] = o.adamw.weight_decay;
  j["decay_matrices_only"] = o.adamw.decay_matrices_only;
  j["max_grad_norm"] = o.adamw.max_grad_norm;
  if (o.adamw.lora_b_rate != 1) j["lora_b_rate"] = o.adamw.lora_b_rate;
  j["seed"] = o.seed;
  return DumpJson(j);
}

}  // namespace

Status CheckRunDirectory(Env& env, const TrainOptions& o) {
  if (o.resume != ResumeMode::kNever || o.overwrite || !HoldsRun(env, o)) return Status::Ok();
  return InvalidArgument(fmt::format(
      "{} holds an earlier run: resume it, overwrite it, or choose another directory", o.run_dir));
}

namespace {

// The options of the run that these resume; null: they start one.
Result<Json> SavedOptions(Env& env, const TrainOptions& o, std::string* path) {
  std::optional<SavedRun> saved;
  if (o.resume == ResumeMode::kNever) return Json();
  if (!o.resume_from.empty()) {
    EW_ASSIGN(saved, ReadSavedRun(env, o.resume_from));
  } else {
    EW_ASSIGN(saved, FindSavedRun(env, CheckpointsDir(o), nullptr));
  }
  if (!saved) return Json();
  *path = saved->path;
  return ParseJson(saved->identity.options_json);
}

}  // namespace

Result<int64_t> RecordedSplit(Env& env, const TrainOptions& o) {
  std::string path;
  EW_ASSIGN(const Json options, SavedOptions(env, o, &path));
  if (options.is_null()) return int64_t{-1};
  const auto found = options.find("split_tokens");
  if (found == options.end()) return int64_t{0};
  if (!found->is_number_integer()) return BadInput(path + ": \"split_tokens\" is no number");
  return found->get<int64_t>();
}

Result<int64_t> RecordedWindows(Env& env, const TrainOptions& o) {
  std::string path;
  EW_ASSIGN(const Json options, SavedOptions(env, o, &path));
  if (options.is_null()) return int64_t{-1};
  const auto method = options.find("method_options");
  if (method == options.end() || !method->is_object()) return int64_t{0};
  const auto exits = method->find("exits");
  if (exits == method->end()) return int64_t{0};
  if (!exits->is_array()) return BadInput(path + ": \"exits\" is no list");
  return static_cast<int64_t>(exits->size());
}

Status Trainer::Prepare() {
  EW_RETURN_IF_ERROR(ValidateOptions(options_, inputs_));
  const int64_t per_epoch = inputs_.train->batches_per_epoch();
  total_micro_ =
      options_.max_steps > 0
          ? options_.max_steps * options_.grad_accum
          : static_cast<int64_t>(std::ceil(options_.epochs * static_cast<double>(per_epoch)));
  result_.total_steps = (total_micro_ + options_.grad_accum - 1) / options_.grad_accum;
  EW_ASSIGN(schedule_, LrSchedule::Create(options_.lr, result_.total_steps));
  identity_.model = inputs_.base_fingerprint;
  identity_.data = inputs_.train->fingerprint();
  identity_.valid_data = inputs_.valid != nullptr ? inputs_.valid->fingerprint() : "";
  EW_ASSIGN(identity_.options_json, OptionsJson(options_, method_, result_.total_steps));
  optimizer_.emplace(options_.adamw, method_.params());

  if (inputs_.lock == nullptr) {
    EW_ASSIGN(lock_, RunLock::Acquire(env_, options_.run_dir));
  }
  EW_RETURN_IF_ERROR(Restore());
  const bool resumed = result_.resumed_from >= 0;
  EW_ASSIGN(metrics_, report::MetricsFile::Open(env_, JoinPath(options_.run_dir, kMetricsName),
                                                resumed ? state_.step : -1));
  EW_RETURN_IF_ERROR(WriteRunFile(env_, options_.run_dir, Describe("running")));
  report::RunEvent event{
      .kind = resumed ? report::RunEvent::Kind::kResume : report::RunEvent::Kind::kStart,
      .step = state_.step,
      .total_steps = result_.total_steps};
  if (resumed) event.note = fmt::format("resuming after step {}", state_.step);
  Emit(event);
  if (!resumed && inputs_.valid != nullptr && options_.eval_at_start) {
    bool best = false;
    seconds_before_ = 0;
    EW_RETURN_IF_ERROR(Validate(&best));
  }
  return Status::Ok();
}

Status Trainer::Restore() {
  const std::string dir = CheckpointsDir(options_);
  if (options_.resume == ResumeMode::kNever) {
    EW_RETURN_IF_ERROR(CheckRunDirectory(env_, options_));
    if (!HoldsRun(env_, options_)) return Status::Ok();
    EW_RETURN_IF_ERROR(env_.RemoveAll(dir));
    // A method may leave fewer files than the one before, and what lies there is read.
    for (const char* adapter :
         {"edge.safetensors", "adapter_model.safetensors", "adapter_config.json"}) {
      EW_RETURN_IF_ERROR(env_.RemoveAll(JoinPath(options_.run_dir, adapter)));
    }
    return env_.RemoveAll(JoinPath(options_.run_dir, kMetricsName));
  }
  EW_RETURN_IF_ERROR(formats::CleanCheckpoints(env_, dir));
  std::optional<SavedRun> saved;
  if (!options_.resume_from.empty()) {
    EW_ASSIGN(saved, ReadSavedRun(env_, options_.resume_from));
  } else {
    std::vector<formats::SkippedCheckpoint> skipped;
    EW_ASSIGN(saved, FindSavedRun(env_, dir, &skipped));
    for (const formats::SkippedCheckpoint& s : skipped) {
      Warn(fmt::format("checkpoint {} is damaged and was passed over: {}", s.path, s.reason));
    }
  }
  if (!saved) {
    if (options_.resume == ResumeMode::kAuto) return Status::Ok();
    return NotFound(fmt::format("there is no valid checkpoint in {} to resume from", dir));
  }
  if (Status s = CheckSameRun(saved->identity, identity_); !s.ok()) {
    return s.WithContext("cannot resume from " + saved->path);
  }
  EW_RETURN_IF_ERROR(RestoreSavedRun(*saved, method_, *optimizer_));
  state_ = saved->state;
  dirty_ = !options_.resume_from.empty();  // that one may lie outside this run
  saved_step_ = dirty_ ? -1 : state_.step;
  first_bad_step_ = state_.step - state_.skipped_in_row + 1;
  result_.resumed_from = state_.step;
  return Status::Ok();
}

void Trainer::Save() {
  if (!dirty_) return;
  const double begin = Elapsed();
  report::SaveEvent event{.step = state_.step};
  if (!ParametersFinite()) {
    save_error_ = "a parameter is not finite; the last good checkpoint is kept";
  } else {
    const bool best = state_.valid_step == state_.step && state_.valid_loss &&
                      std::isfinite(*state_.valid_loss) &&
                      (!state_.best_loss || *state_.valid_loss < *state_.best_loss);
    RunState next = state_;
    next.seconds = seconds_before_ + Elapsed();
    if (best) {
      next.best_loss = state_.valid_loss;
      next.best_step = state_.step;
    }
    if (metrics_ != nullptr) (void)metrics_->Sync();
    Result<formats::CheckpointInfo> info =
        SaveRunState(env_, CheckpointsDir(options_), identity_, next, method_, *optimizer_);
    save_error_ = info.ok() ? "" : info.status().message();
    if (info.ok()) {
      event.path = info->path;
      state_ = next;
      saved_step_ = state_.step;
      dirty_ = false;
    }
  }
  event.error = save_error_;
  event.seconds = Elapsed() - begin;
  Emit(event);
  if (!save_error_.empty()) {
    Warn(fmt::format("checkpoint of step {} not saved: {}", state_.step, save_error_));
    return;
  }
  std::vector<std::string> keep;
  if (state_.best_step >= 0) keep.push_back(formats::CheckpointName(state_.best_step));
  const auto removed =
      formats::PruneCheckpoints(env_, CheckpointsDir(options_), options_.save_total_limit, keep);
  if (!removed.ok()) Warn("old checkpoints not removed: " + removed.status().message());
}

Status Trainer::Stop(Status reason) {
  Save();
  std::string where;
  if (saved_step_ >= 0) {
    where = JoinPath(CheckpointsDir(options_), formats::CheckpointName(saved_step_));
  }
  const bool interrupted = reason.code() == StatusCode::kInterrupted;
  if (Status s =
          WriteRunFile(env_, options_.run_dir, Describe(interrupted ? "interrupted" : "failed"));
      !s.ok()) {
    Warn(s.message());
  }
  std::string text =
      fmt::format("{} after step {} of {}; ", reason.message(), state_.step, result_.total_steps);
  text += where.empty() ? "nothing could be saved" : "the last good state is in " + where;
  Emit(report::RunEvent{.kind = report::RunEvent::Kind::kEnd,
                        .step = state_.step,
                        .total_steps = result_.total_steps,
                        .note = text});
  if (interrupted && dirty_) {
    return Status(StatusCode::kSaveFailed, text + "; saving failed: " + save_error_);
  }
  return Status(reason.code(), text);
}

Status Trainer::Export() {
  result_.exported = "last";
  result_.exported_step = state_.step;
  const bool best = options_.keep == KeepResult::kBest && state_.best_step >= 0 &&
                    state_.best_step != state_.step;
  if (best) {
    const std::string path =
        JoinPath(CheckpointsDir(options_), formats::CheckpointName(state_.best_step));
    Status restored = formats::ReadCheckpoint(env_, path).status();
    if (restored.ok()) restored = method_.Restore(path);
    if (!restored.ok()) return restored.WithContext("the best checkpoint");
  }
  if (best || state_.best_step == state_.step) result_.exported = "best";
  if (best) result_.exported_step = state_.best_step;
  EW_ASSIGN(std::vector<ResultFile> files, method_.Files());
  EW_RETURN_IF_ERROR(WriteResultFiles(env_, options_.run_dir, files));
  EW_ASSIGN(std::vector<ResultFile> extras, method_.ExportFiles());
  EW_RETURN_IF_ERROR(WriteResultFiles(env_, options_.run_dir, extras));
  EW_RETURN_IF_ERROR(WriteModelCard(env_, options_.run_dir, Describe("finished")));
  return WriteRunFile(env_, options_.run_dir, Describe("finished"));
}

Status Trainer::Finish() {
  // Once more if the interval's save failed: the disk may have room by now.
  Save();
  Status exported = Export();
  Emit(report::RunEvent{.kind = report::RunEvent::Kind::kEnd,
                        .step = state_.step,
                        .total_steps = result_.total_steps});
  if (exported.ok() && !dirty_) return Status::Ok();
  const std::string why = exported.ok() ? save_error_ : exported.message();
  return Status(StatusCode::kSaveFailed,
                fmt::format("all {} steps are done, but saving failed: {}", state_.step, why));
}

}  // namespace edgewise::tune
