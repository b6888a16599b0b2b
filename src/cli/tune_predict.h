// What a run will take, before it takes it: the plan of a step by the cost model (schedule/), from
// operations measured on this machine in the sizes that the run has.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "cli/tune_data.h"
#include "exec/context.h"
#include "model/model.h"
#include "model/workload.h"
#include "plan/plan.h"
#include "schedule/search.h"
#include "tune/memory_estimate.h"

namespace edgewise::cli {

// The mean micro-batch of the training data.
struct MeanBatch {
  int64_t tokens = 1;
  double supervised = 1;        // share of the tokens that carry loss
  int64_t document_tokens = 1;  // of documents, weighted by their tokens
  int64_t split_tokens = 0;     // as asked for
  double parts = 1;             // of a micro-batch as the data gives it
};
// Of micro-batches that are cut (tune::CutBatch; 0: they are not).
Result<MeanBatch> MeanBatchOf(tune::DatasetSource& source, int64_t split_tokens = 0);

// Steps that train the same layers.
struct StepKind {
  model::LayerRange window;  // kEdge: the layers that are trained
  bool trunk = false;        // kEdge: what lies below is computed in the step
  double steps = 0;
};

// "never", "auto", "always" of an option that has been checked.
schedule::Use ParseUse(std::string_view name);

// The micro-batches of a group that `--order` names: "row" (1), "column" (more than any step has),
// a number, or 0 for `searched`. Error: none of these.
Result<int64_t> ParseOrder(std::string_view text, std::string_view searched = "searched");

struct PredictRequest {
  const TuneData& data;
  model::WorkloadMethod method = model::WorkloadMethod::kLora;
  int64_t rank = 8, head_rank = 0, last_layers = 0;
  bool integer_backward = false;
  float head_skip_below = 0;
  double head_kept_share = -1;  // of the vocabulary's blocks; -1: unknown
  // With a teacher, measured seconds a token: of its states, and of the window's head, which looks
  // at the logits of both (in place of what is predicted for it).
  double teacher_seconds = 0, teacher_head_seconds = 0;
  bool whole_head = false;  // wanted at once, not in blocks
  plan::Recompute recompute = plan::Recompute::kNone;
  int64_t mlp_tokens = model::kMlpRows;  // plan::Choice; smaller ones may be chosen
  int64_t grad_accum = 1;
  int64_t split_tokens = 0;  // how micro-batches are cut; 0: they are not
  // How they may be cut where that is clearly faster, largest first, and whether they may then be
  // recomputed and in which groups they go.
  std::vector<int64_t> splits = {};
  bool split_may_recompute = false;
  int64_t split_group = 1;
  int64_t validations = 0;
  std::vector<StepKind> kinds = {};
  int64_t cached_layers = 0;  // kEdge: below the highest window; computed once for every document
  int64_t memory_limit = 0;   // 0: none
  // What a step takes beside the weights, with micro-batches cut so, by the choice's recompute,
  // mlp_tokens and layers_in_memory.
  std::function<Result<tune::MemoryEstimate>(int64_t split_tokens, const plan::Choice& choice)>
      memory = {};
  schedule::Use spill = schedule::Use::kNever;
  double spill_write_gbps = 0, spill_read_gbps = 0;
  bool may_recompute = false;  // the search may choose it
  int64_t group = 1;           // of micro-batches that share what is read; 0: so may these
  // Called when every operation has been measured (in batches of so many tokens), before `memory`
  // is asked.
  std::function<void(int64_t tokens)> measured = {};
};

struct RunPrediction {
  int64_t split_tokens = 0;  // of the request, or one of its splits
  plan::Plan plan;           // of the kind with the most steps, checked
  plan::Device device;       // that it was searched for
  schedule::SearchOptions search;
  double steps = 0;
  double step_seconds = 0;        // mean over all kinds
  double trunk_seconds = 0;       // of the states below windows, once a run
  double validation_seconds = 0;  // all of them
  double seconds = 0;             // of the run
};

// Searches each kind's plan among the orders that the executor obeys (micro-batches one after the
// other or in groups, recomputed or not, weights read ahead) and checks it. Micro-batches are cut
// in another way than the request's where that is clearly faster (of those that are cut anyway:
// faster), or alone fits. Takes the time of measuring one layer's operations a few times. Errors:
// kOutOfMemory; kInternal: a plan that is not sound.
Result<RunPrediction> PredictRun(ExecContext& ctx, const model::Model& model,
                                 const PredictRequest& request);

// The same plan where everything computed takes `factor` times as long as was measured: what a step
// of the run itself says of its operations.
Status Rescale(double factor, RunPrediction* prediction);

}  // namespace edgewise::cli
