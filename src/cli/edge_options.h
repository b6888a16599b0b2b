// The options of `tune --method edge`.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"
#include "tune/edge_method.h"

namespace CLI {
class App;
}  // namespace CLI

namespace edgewise::cli {

struct EdgeFlags {
  int64_t exits = 1, window = 0;
  int64_t first_layer = -1;  // negative: three quarters up
  std::string windows = "tiled", window_steps;
  std::string trunk = "frozen", trunk_forward = "integer", schedule = "sequential";
  bool rate_per_window = false;
  std::string head = "shared", backward = "integer";
  int64_t head_lora_rank = -1;  // negative: as the windows
  int64_t windows_per_step = 1;
  int activation_bits = 0;
  std::string distill;
  double distill_weight = 0.5;
  bool whole_head = false;
  bool paper_mode = false;
  bool no_cache = false;
  std::string cache_codec = "bf16", cache_limit;
};

void DeclareEdge(CLI::App& app, EdgeFlags& flags);

// LoRA rank of method edge when none is named. Windows hold a quarter of the layers, so they can
// afford a higher one than full depth.
inline constexpr int64_t kEdgeRank = 32;
// AdamWOptions::lora_b_rate of method edge when none is named: a window of few layers has to move
// further than the same layers of a whole model do.
inline constexpr double kEdgeLoraPlus = 8;
// Blocks of the vocabulary whose every probability is below are left out of the gradient by method
// edge unless told otherwise (as in Cut Cross-Entropy, arXiv 2411.09009).
inline constexpr double kEdgeHeadSkip = 0x1p-12;

// Whether an option (by its long name) was given.
using GivenFn = std::function<bool(const char*)>;
// The released code's choices about windows and exits, for every option that was not given.
void SetPaperMode(const GivenFn& given, EdgeFlags* flags);

// Sets what the flags decide, for a model of `layers` layers; `run_dir` is where the cache goes.
// `options->lora` has to be filled in. Error: names the flag.
Status ApplyEdge(const EdgeFlags& flags, int64_t layers, const std::string& run_dir,
                 tune::EdgeOptions* options);

}  // namespace edgewise::cli
