// Adaptive layer tuning (Edge-LLM, arXiv 2406.15758): each step tunes the window of layers below
// one exit. Forward stops at the exit, backward at the window's start, and the states in which
// windows start come from the Trunk.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "exec/context.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/parameters.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"
#include "tune/exits.h"
#include "tune/method.h"
#include "tune/trunk.h"

namespace edgewise::tune {

enum class HeadMode {
  kShared,  // the model's norm and head, with a norm gain (and optionally a LoRA on the head) per
            // exit
  kCopy,    // a full trainable copy of the head per exit, without sharing (released code)
};
Result<HeadMode> ParseHeadMode(std::string_view name);  // "shared", "copy"
std::string_view HeadModeName(HeadMode mode);

struct EdgeOptions {
  ExitOptions exits;
  ExitOrder order = ExitOrder::kSequential;  // kCumulative trunks are always tuned bottom-up
  std::vector<double> shares;  // kSequential: relative number of steps of each window; empty: equal
  // kSequential: the learning rate follows its schedule in each window's steps instead of once.
  bool rate_per_window = false;
  TrunkOptions trunk;
  HeadMode head = HeadMode::kShared;
  // kShared: train each exit's norm gain. With a cumulative trunk the last exit keeps the model's
  // own, so that the result is one ordinary adapter.
  bool train_norm = true;
  int64_t head_lora_rank = 0;        // kShared: LoRA on each exit's head; 0: none
  double head_lora_alpha = 0;        // 0: 2 * rank
  model::LoraConfig lora;            // of the windows' linears; `layers_to_transform` is set here
  int64_t total_steps = 0;           // of the run, for the order of the exits
  std::vector<TokenBatch> held_out;  // kAdaptive: what the exits are compared on
  uint64_t seed = 42;                // of initial values and of random order
  // kFrozen: a step tunes the scheduled exit's window and the next ones above it (from the bottom
  // again after the last), on the mean of their losses: with as many as there are exits, the loss
  // of all of them. The windows run one after the other.
  int64_t windows_per_step = 1;
  int activation_bits = 0;  // model::PassOptions::activation_bits; set in `trunk` too
  // A model with the same vocabulary whose distribution is learned from, or null; has to outlive
  // the method. `teacher_name` tells it from others when a run is resumed.
  const model::Model* teacher = nullptr;
  double teacher_weight = 0;  // model::Teacher::weight
  std::string teacher_name;
  bool whole_head = false;  // model::PassOptions::whole_head
  plan::Recompute recompute = plan::Recompute::kNone;
  // Of gradients through packed weights; kInteger rounds stochastically.
  kernels::BackwardMode backward = kernels::BackwardMode::kExact;
  float head_skip_below = 0;  // kernels::HeadLossArgs::skip_below
  std::string base_name;
  model::PartTimes* times = nullptr;  // parts of the micro-batches are timed here
};

// Seconds of the parts of a run so far.
struct EdgeTimes {
  double trunk = 0;        // making cached states ahead of the steps
  double start = 0;        // states at the windows' starts: read from the cache, or computed
  double teacher = 0;      // a teacher's states; its logits are part of the passes' head
  model::PassPhases pass;  // training passes of windows
};

class EdgeMethod : public Method {
 public:
  // `documents`: ids of all documents of the training (and validation) data, for the cache. `stop`
  // and `progress` (may be empty) are for the passes that fill the cache. The model must outlive
  // the method. Errors: options that do not fit the model.
  static Result<std::unique_ptr<EdgeMethod>> Create(ExecContext& ctx, const model::Model& model,
                                                    EdgeOptions options,
                                                    std::vector<std::vector<int32_t>> documents,
                                                    int64_t max_tokens,
                                                    const std::atomic<bool>* stop,
                                                    TrunkProgressFn progress);

  const std::vector<model::Parameter>& params() const override { return params_; }
  std::pair<int64_t, int64_t> RatePhase(int64_t step, int64_t total_steps) override;
  Status BeginStep(int64_t step, std::vector<int32_t>* active) override;
  Result<LossSum> Micro(const TokenBatch& batch, const MicroContext& context) override;
  Status Micros(std::span<const TokenBatch* const> batches, std::span<const int64_t> micros,
                MicroContext context, std::vector<LossSum>* losses) override;
  int64_t group() const override { return group_; }
  // kCumulative: the loss of the whole model. kFrozen: of the mean of the exits' probabilities.
  Result<LossSum> Evaluate(const TokenBatch& batch) override;
  Result<std::vector<LossSum>> EvaluateExits(const TokenBatch& batch) override;
  int CurrentExit() const override { return exits_.size() > 1 ? current_ : -1; }
  report::HeldMemory Held() const override;
  Result<std::vector<ResultFile>> Files() override;
  Status Restore(const std::string& directory) override;
  std::string SaveState() const override;
  Status LoadState(const std::string& state) override;
  std::string name() const override { return "edge"; }
  std::string OptionsJson() const override;

  const std::vector<Exit>& exits() const { return exits_; }
  int ExitAt(int64_t step);
  // Loss of one exit alone.
  Result<LossSum> EvaluateExit(const TokenBatch& batch, int exit, float* token_loss = nullptr);
  // What the exit adds to the model, for inference and export. kCumulative: one adapter for all.
  const model::LoraAdapter& adapter(int exit) const;
  model::ExitHead head(int exit) const;
  const Trunk& trunk() const { return *trunk_; }
  const EdgeOptions& options() const { return options_; }
  const EdgeTimes& times() const { return times_; }
  // Blocks of the vocabulary in all training passes: kernels::HeadLossResult.
  const kernels::HeadLossResult& head_blocks() const { return head_blocks_; }
  // From now on activations are kept, or computed again in the backward pass
  // (model::PassOptions::recompute of every layer, and its mlp_rows; same bits).
  void SetRecompute(plan::Recompute recompute, int64_t mlp_rows) {
    recompute_.assign(static_cast<size_t>(model_.config().num_layers()), recompute);
    mlp_rows_ = mlp_rows;
    pass_.SetMlpRows(mlp_rows);
  }
  // From now on only so many layers of a window, the topmost ones, keep what they keep in memory
  // (model::PassOptions::layers_in_memory; same bits). `spill` has to outlive the method.
  void SetSpill(int64_t layers_in_memory, model::ActivationSpill* spill) {
    layers_in_memory_ = layers_in_memory;
    spill_ = spill;
  }
  // Whether several micro-batches may go through each layer together: with a teacher (whose states
  // are those of one), with several windows a step and with the whole head they come one by one.
  bool TakesGroups() const {
    return options_.teacher == nullptr && options_.windows_per_step == 1 && !options_.whole_head;
  }
  // Whether the head is wanted at once, not block by block.
  bool TakesWholeHead() const { return options_.teacher != nullptr || options_.whole_head; }
  // From now on so many micro-batches go through each layer together; one, where groups are not
  // taken. Gives buffers back until they are needed.
  void SetGroup(int64_t group);
  // From now on batches hold up to `max_tokens`, cut by `split_tokens` (TrainOptions). Gives
  // buffers back, and states below windows that were computed in larger groups. Settle: it stays
  // so.
  Status SetMaxTokens(int64_t max_tokens, int64_t split_tokens);
  Status Settle() { return trunk_->Settle(); }
  // Of one micro-batch of so many tokens: the largest window's activations and working buffers,
  // start states included.
  model::PassMemory MemoryNeeded(int64_t max_tokens);
  model::PassMemory MemoryNeeded() { return MemoryNeeded(pass_.max_tokens()); }
  // The same, and how many numbers are trained, if the layers were tuned in these windows instead.
  // REQUIRES one window, which holds them all.
  model::PassMemory MemoryNeeded(int64_t max_tokens, std::span<const Exit> windows);
  int64_t ParametersOf(std::span<const Exit> windows) const;

 private:
  // The trainable things of one exit beside the adapter.
  struct ExitState {
    int adapter = 0;               // index into adapters_
    model::GradientMap gradients;  // of the window's LoRA factors
    FloatBuffer values, grads;     // norm gain, head LoRA or head copy, in this order
    float* norm = nullptr;         // [hidden]; null: the model's own
    float* head_lora_a = nullptr;  // [r, hidden]
    float* head_lora_b = nullptr;  // [vocab, r]
    float* head = nullptr;         // [vocab, hidden]
    kernels::WeightRef head_ref;
    std::vector<int32_t> head_params;  // indices into params_
    std::vector<int32_t> params;       // the window's and the head's
    int head_owner = 0;                // the exit whose head this one uses
  };

  EdgeMethod(ExecContext& ctx, const model::Model& model, EdgeOptions options, int64_t max_tokens);
  Status MakeAdapters();
  Status MakeHeads();
  bool TrainsNorm(const Exit& exit) const;
  int64_t HeadParameters(const Exit& exit) const;  // that are trained beside the window's
  model::PassMemory MemoryOf(std::span<model::PassOptions> windows, int64_t max_tokens);
  const ExitState& HeadOf(int exit) const {
    return states_[static_cast<size_t>(states_[static_cast<size_t>(exit)].head_owner)];
  }
  float* GradOf(const ExitState& exit, const float* value) const;
  bool cumulative() const { return options_.trunk.mode == TrunkMode::kCumulative; }
  model::PassOptions WindowPass(int exit, bool train);
  Status ReportLosses(int64_t step);
  std::vector<int> ExitsOfStep() const;  // that the step begun tunes
  // Bytes that the teacher's run takes, its weights not counted.
  int64_t TeacherScratch(int64_t max_tokens) const;
  Status MakeTeacher(ExecContext& ctx, int64_t max_tokens);
  void SetTeacherTokens(int64_t max_tokens);
  Status RunTeacher(const TokenBatch& batch);
  Result<const float*> Start(const TokenBatch& batch, int exit, int64_t row = 0);

  const model::Model& model_;
  EdgeOptions options_;
  model::TrainingPass pass_;
  std::vector<Exit> exits_;
  std::vector<std::unique_ptr<model::LoraAdapter>> adapters_;  // one, or one per exit
  struct LayerParams {
    model::ParameterSet set;
    std::vector<int32_t> params;  // indices into params_
  };
  std::vector<std::vector<LayerParams>> layer_params_;  // per adapter, per layer
  std::vector<ExitState> states_;
  std::vector<model::Parameter> params_;
  std::vector<plan::Recompute> recompute_;
  int64_t mlp_rows_ = model::kMlpRows;
  int64_t layers_in_memory_ = -1;
  model::ActivationSpill* spill_ = nullptr;
  std::optional<ExitSchedule> schedule_;
  std::unique_ptr<Trunk> trunk_;
  int64_t group_ = 1;
  FloatBuffer start_;  // [group, max_tokens, hidden]
  std::unique_ptr<model::TrainingPass> teacher_pass_;
  FloatBuffer teacher_state_, teacher_rows_;  // [max_tokens, its hidden]
  model::Teacher teacher_;
  EdgeTimes times_;
  kernels::HeadLossResult head_blocks_;
  std::vector<TokenBatch> held_out_;  // of the options, cut as micro-batches are
  int64_t split_tokens_ = 0;
  int current_ = 0;        // exit of the step begun
  int64_t reported_ = -1;  // the step before which losses were last reported
  const std::atomic<bool>* stop_ = nullptr;
  TrunkProgressFn progress_;
};

}  // namespace edgewise::tune
