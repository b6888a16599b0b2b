// bench tune --method edge: whole runs of adaptive layer tuning on random weights, cache making
// included.
#pragma once

#include <cstdint>
#include <vector>

#include "cli/command.h"
#include "cli/edge_options.h"
#include "io/json.h"
#include "model/model.h"
#include "model/part_times.h"
#include "plan/workload.h"

namespace edgewise::cli {

struct EdgeBenchOptions {
  EdgeFlags edge;
  int64_t rank = 0;       // of the windows; 0: kEdgeRank
  int64_t tokens = 512;   // of a document and a step
  int64_t documents = 8;  // steps of one epoch
  int64_t epochs = 3;
  double supervised = 1;             // share of the tokens with a target: the end of each document
  double head_skip = kEdgeHeadSkip;  // kernels::HeadLossArgs::skip_below
  bool recompute = false;
  uint64_t seed = 1;
  int64_t program_bytes = 0;  // resident before the model was made
  int64_t memory_limit = 0;   // of a streamed model; 0: none
};

struct EdgeBenchResult {
  double seconds = 0;        // of the whole run
  double cache_seconds = 0;  // of making the trunk's states, part of it
  int64_t tokens = 0;        // seen in all epochs
  std::vector<double> step_seconds;
  double flops = 0;  // of all steps and the trunk
  // Steps of the last window but its first, and what they are made of.
  plan::Workload last_window;
  model::PartTimes times;
  int64_t timed_steps = 0;
  int64_t peak_bytes = 0;
  OrderedJson details;
};

// Error: kInterrupted; kOutOfMemory: more than the limit; options that do not fit the model; no
// room for the cache (in the system's folder for temporary files).
Result<EdgeBenchResult> RunEdgeBench(Invocation& inv, const model::Model& model,
                                     const EdgeBenchOptions& options);

}  // namespace edgewise::cli
