// bench tune (but for --method edge, bench_edge.h), prefill and decode: what runs, with its
// figures.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "io/json.h"
#include "model/model.h"

namespace edgewise::cli {

struct BenchOptions {
  std::string method;  // tune: lora, last-n or full
  int64_t tokens = 512;
  int64_t steps = 0;               // measured steps, runs or tokens; 0: 5, or 32 tokens
  int64_t rank = 0;                // 0: 8
  int64_t last_layers = 16;        // last-n
  int64_t vote_exits = 0;          // decode
  std::string cache_type = "f32";  // prefill, decode
  bool recompute = false;
  uint64_t seed = 1;
};

struct BenchRun {
  int64_t tokens = 0;           // of one measurement
  std::vector<double> seconds;  // of each, at least one
  double flops = 0;             // of one
  int64_t peak_bytes = 0;       // 0: that of the process
  OrderedJson details;
  // What the cost model says of it; takes memory and time of its own. Empty: nothing.
  std::function<Result<OrderedJson>()> compare;
};

// Errors: kInterrupted; options that do not fit the model. The model has to outlive the run.
Result<BenchRun> BenchTune(Invocation& inv, model::Model& model, const BenchOptions& options);
Result<BenchRun> BenchPrefill(Invocation& inv, const model::Model& model,
                              const BenchOptions& options);
Result<BenchRun> BenchDecode(Invocation& inv, const model::Model& model,
                             const BenchOptions& options);

}  // namespace edgewise::cli
