// What tune prints: the plan before, the result after.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/tune_data.h"
#include "data/dataset.h"
#include "report/progress.h"
#include "tune/memory_estimate.h"
#include "tune/trainer.h"

namespace edgewise::cli {

struct TunePlan {
  std::string model, method;
  int64_t base_parameters = 0, trainable_parameters = 0;
  int64_t steps = 0, batches_per_epoch = 0, batch_tokens = 0;
  double predicted_seconds = 0, predicted_step_seconds = 0;
  int64_t candidates = 0;  // plans of a step that were compared
  std::string bound;       // the slowest stream of a step: "compute" or "disk"
  tune::MemoryEstimate memory;
  int64_t memory_limit = 0;  // 0: none known
  plan::Recompute recompute = plan::Recompute::kNone;
  int64_t mlp_tokens = 0;         // through the MLP of a layer that does not keep it at a time
  int64_t windows = 0;            // method edge: windows, each below its exit; 0: another method
  int64_t window_layers = 0;      // of the largest
  bool windows_chosen = false;    // since fewer did not fit
  int64_t split_tokens = 0;       // micro-batches are cut into ones of at most so many; 0: not
  int64_t group = 1;              // micro-batches that go through each layer together
  int64_t weight_budget = 0;      // of weights in memory at a time; 0: all of them, mapped
  bool offloaded = false;         // read from disk as they are needed
  int64_t layers_in_memory = -1;  // topmost ones, of activations; -1: all
  int64_t spilled_layers = 0;     // whose activations pass through the disk
  double written_bytes = 0;       // of them in a step
};

OrderedJson PlanJson(const TunePlan& plan);
std::string PlanText(const TunePlan& plan, const std::string& data_report);

// The rendered text with what is learned between « and ».
std::string SampleText(const data::PreviewSample& sample);
OrderedJson SampleJson(const data::PreviewSample& sample);

OrderedJson ResultJson(const TunePlan& plan, const tune::TrainResult& result,
                       const std::string& run_dir);
std::string ResultText(const OrderedJson& result);

// Where progress lines go and how, from the terminal and the environment.
report::ProgressOptions ProgressFor(const Console& console, bool no_progress, int64_t memory_limit);

}  // namespace edgewise::cli
