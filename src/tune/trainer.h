// The training loop of every method: order of the data, accumulation, clipping, update, schedule,
// validation, checkpoints, interruption and resumption.
//
// Step s (from 0) takes the micro-batches s A .. s A + A - 1 of the endless sequence of passes over
// the training set (A = grad_accum; the last step of a run may have fewer). All its supervised
// tokens weigh the same: they are counted first, and every micro-batch is scaled by one over that
// count. Where micro-batches are cut (TrainOptions::split_tokens) their parts take their place, in
// order. What is done in a step depends on the parameters, the optimiser's state, the options and s
// alone, so a run that was stopped and resumed ends in the same bits as one that was not.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "io/env.h"
#include "report/metrics.h"
#include "tune/batch_source.h"
#include "tune/lr_schedule.h"
#include "tune/method.h"
#include "tune/optimizer.h"
#include "tune/run_dir.h"
#include "tune/run_state.h"

namespace edgewise::tune {

enum class KeepResult { kBest, kLast };  // what the run's directory holds in the end

enum class ResumeMode {
  kNever,     // the directory must not hold a run
  kAuto,      // go on if there is a valid checkpoint, start otherwise
  kRequired,  // go on, or fail
};

struct TrainOptions {
  std::string run_dir;
  double epochs = 1;
  int64_t max_steps = 0;  // > 0: instead of epochs
  int64_t grad_accum = 1;
  // Micro-batches, those of validation too, are cut between documents into ones of at most so many
  // tokens (CutBatch): the same losses and gradients but for the order of sums and for what is
  // drawn or rounded micro-batch by micro-batch (dropout, integer gradients). 0: never. A resumed
  // run has to keep it.
  int64_t split_tokens = 0;
  LrOptions lr;
  AdamWOptions adamw;
  uint64_t seed = 42;  // of dropout; data order and initial values have their own, in their sources

  int64_t eval_every = 0;  // steps; 0: after the last only
  bool eval_at_start = true;
  int64_t save_every = 0;               // steps; 0: after the last only
  int64_t save_total_limit = 2;         // checkpoints kept, the best one among them
  KeepResult keep = KeepResult::kBest;  // kBest without validation is kLast
  // So many steps in a row with a loss or gradient that is not finite end the run.
  int64_t nonfinite_patience = 5;

  ResumeMode resume = ResumeMode::kNever;
  std::string resume_from;  // a checkpoint directory instead of the newest of the run
  bool overwrite = false;   // kNever: remove an earlier run's checkpoints and metrics
};

struct TrainInputs {
  BatchSource* train = nullptr;
  BatchSource* valid = nullptr;   // may be null
  std::string base_path;          // as the user named it
  std::string base_fingerprint;   // tune/fingerprint.h
  std::string version;            // of this program
  std::string extra_json;         // an object of further keys for edgewise.json, or ""
  const RunLock* lock = nullptr;  // on the directory, held by the caller; null: Run takes it
};

struct TrainHooks {
  std::function<void(const report::Event&)> on_event;
  // The caller's own evaluation, after each validation; a higher score is better or not is up to
  // the caller, it is only reported.
  std::function<Result<double>(int64_t step)> evaluate;
  std::string evaluate_name;
  // Set (by a signal handler) to stop: the micro-batch under way is finished, the state saved.
  const std::atomic<bool>* stop = nullptr;
  // Set to ask for a checkpoint after the step under way; cleared by the trainer.
  std::atomic<bool>* save_request = nullptr;
};

struct TrainResult {
  RunState state;
  int64_t total_steps = 0;
  int64_t steps_here = 0;  // in this process
  int64_t tokens_here = 0;
  double seconds_here = 0;
  double tokens_per_s = 0;  // of this process, validation and saving not counted
  // Mean of the steps here. Not counted: the first one, which touches memory that is not there yet
  // (unless it is the only one), and making what a method keeps (states below windows).
  double step_seconds = 0;
  int64_t resumed_from = -1;  // step
  std::string exported;       // "best" or "last"
  int64_t exported_step = -1;
};

// Whether a run with these options may start in its directory, as far as its files say: what a
// caller asks before it does work that Run would refuse. Error: it holds an earlier run
// (kInvalidArgument).
Status CheckRunDirectory(Env& env, const TrainOptions& options);

// TrainOptions::split_tokens of the run that these options resume; -1: they start one. Errors:
// those of reading the checkpoint.
Result<int64_t> RecordedSplit(Env& env, const TrainOptions& options);
// How many windows the method edge of that run has; 0: it has none. Otherwise the same.
Result<int64_t> RecordedWindows(Env& env, const TrainOptions& options);

class Trainer {
 public:
  // Everything passed must outlive the trainer.
  Trainer(ExecContext& ctx, Env& env, Method& method, TrainOptions options, TrainInputs inputs,
          TrainHooks hooks = {});
  ~Trainer();

  // Error codes: kInterrupted (stopped, state saved), kSaveFailed (all steps done, result or last
  // checkpoint could not be written), kBadInput (the run does not converge to numbers any more; the
  // last good state is kept), kInvalidArgument (options, another run's directory).
  Status Run();

  // After Run, whatever it returned: how far it came.
  const TrainResult& result() const { return result_; }

 private:
  struct Window;  // the batches of one step
  struct StepOutcome;

  Status Prepare();
  Status Restore();
  Status Loop();
  Status Finish();
  Result<Window> Load(int64_t step);
  Result<double> RateAt(int64_t step);
  Result<StepOutcome> DoStep(const Window& window);
  void Account(const Window& window, const StepOutcome& outcome, double seconds);
  Status AfterStep();
  Status Validate(bool* best);
  void Save();
  Status Stop(Status reason);
  Status Export();
  bool StopRequested() const { return hooks_.stop != nullptr && hooks_.stop->load(); }
  bool ParametersFinite();
  void Emit(const report::Event& event);
  void Warn(std::string message);
  double Elapsed() const;
  RunDescription Describe(const char* status) const;

  ExecContext& ctx_;
  Env& env_;
  Method& method_;
  const TrainOptions options_;
  const TrainInputs inputs_;
  const TrainHooks hooks_;

  std::unique_ptr<RunLock> lock_;
  std::unique_ptr<report::MetricsFile> metrics_;
  std::optional<AdamW> optimizer_;
  std::optional<LrSchedule> schedule_;
  RunIdentity identity_;
  TrainResult result_;
  RunState& state_;               // result_.state
  int64_t total_micro_ = 0;       // micro-batches of the whole run
  int64_t saved_step_ = -1;       // of the newest checkpoint of this run
  bool dirty_ = true;             // the state differs from that checkpoint
  bool valid_cut_short_ = false;  // the validation of this step was interrupted
  bool metrics_failed_ = false;
  std::string save_error_;       // why the latest save failed; "" when it did not
  double step_seconds_ = 0;      // of the steps of this process alone
  double begin_seconds_ = 0;     // of BeginStep in the step under way
  double settled_seconds_ = 0;   // of what step_seconds in the result counts
  double start_ = 0;             // clock at the start
  double seconds_before_ = 0;    // state_.seconds when this process began
  int64_t first_bad_step_ = -1;  // of the steps in a row that were skipped
};

}  // namespace edgewise::tune
