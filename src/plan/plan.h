// A plan: in which order the squares of the grid are computed, which weights are read when and
// which go for them, what is recomputed. Plain data; schedule/check.h says whether it is sound.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "plan/workload.h"

namespace edgewise::plan {

// One square: stage `stage` of micro-batch `micro`.
struct Visit {
  int32_t stage = 0;
  int32_t micro = 0;
  // Before it: units that go, then units that are read (they may be read while earlier squares
  // compute; that they are there when this one starts is what counts).
  std::vector<int32_t> evict, load;
  // Its layer's piece is written to the disk after it, or read from there before it.
  bool store = false, fetch = false;
};

// What the search chooses.
struct Choice {
  int64_t tokens = 0;         // of a micro-batch
  int64_t micro_batches = 1;  // of a step
  // Micro-batches that go through a layer together: 1 is row by row (a micro-batch runs to its end
  // first), all of them column by column (a layer runs to its end first), else mixed.
  int64_t group = 1;
  Recompute recompute = Recompute::kNone;
  // Tokens that go at a time through the MLP of a layer that does not keep it.
  int64_t mlp_tokens = 0;
  bool overlap = true;        // weights are read while others compute
  int64_t weight_budget = 0;  // bytes of weights in memory at a time
  // Topmost layers whose pieces stay in memory; those of the others are written to the disk and
  // read back for the backward pass. -1: all of them.
  int64_t layers_in_memory = -1;
};

// Seconds of a step by stream. The slowest of them is what a perfect overlap would take (Eq. 3).
struct Streams {
  double compute = 0, load = 0, store = 0;
  double slowest() const;
};

struct Span {
  char stream = 'c';  // 'c' computes, 'l' loads, 's' stores
  double begin = 0, end = 0;
  std::string name;
};

struct StageCost {
  std::string name;
  double seconds = 0;       // compute
  double load_seconds = 0;  // of its weights, if they have to be read
  std::string bound;        // "compute", "sram", "dram", "disk": what limits it
};

struct Plan {
  std::string device;
  bool simulated = false;
  int64_t memory_limit = 0;
  uint64_t seed = 0;       // of the search; 0: it was exhaustive
  int64_t candidates = 0;  // that the search looked at
  Choice choice;
  Workload workload;             // of this choice
  double predicted_seconds = 0;  // of a step
  int64_t predicted_peak_bytes = 0;
  int64_t loaded_bytes = 0, stored_bytes = 0;  // of a step, in the steady state
  Streams streams;
  std::vector<StageCost> stages;
  std::vector<Visit> visits;      // of one step, in order
  std::vector<int32_t> resident;  // units in memory when the step begins
  std::vector<Span> timeline;
};

nlohmann::ordered_json ToJson(const Plan& plan);

}  // namespace edgewise::plan
