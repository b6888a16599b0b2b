// What a tuning step computes, as data: operations by stage, weights by unit, and what memory is
// held how long. Written by the model layer, read by the scheduler; neither sees the other.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "plan/device.h"

namespace edgewise::plan {

// What of a trained layer is computed again in the backward pass instead of kept.
enum class Recompute : uint8_t {
  kNone,
  kMlp,    // the MLP half, in pieces of tokens: what it keeps is the most of a layer
  kLayer,  // everything but the layer's input, the MLP half in pieces of tokens
};
std::string_view RecomputeName(Recompute recompute);  // "none", "mlp", "layer"

// Tokens of such a piece: as many as keep the kernels at their rate, and the fewest.
inline constexpr int64_t kMlpTokens = 512, kLeastMlpTokens = 256;
// `largest`, and the smaller ones that a micro-batch of so many tokens has more than one of.
std::vector<int64_t> MlpPieces(int64_t largest, int64_t tokens);

// One kernel call.
struct Op {
  std::string name;  // "q_proj", "attention"
  KernelKind kind = KernelKind::kLinearForward;
  int64_t tokens = 0;  // rows
  int64_t out = 0, in = 0;
  int bits = 32;  // of the weights
  double sparsity = 0;
  bool blocks = false;
  double gops = 0;  // 10^9 operations of the dense product, or bytes
  int64_t weight_bytes = 0;
  double share = 1;      // a part of a product that comes in parts; in `gops` already
  int64_t rank = 0;      // of an adapter (kHeadLoss: the head's); of a head in kAttention, kRotary
  int group = -1;        // columns per scale, 0: one per row; -1: unknown
  float skip_below = 0;  // of kHeadLoss: gradients of less probable blocks are left out
  double kept_share = -1;  // with skip_below: share of the blocks that stay; -1: unknown
};

// One layer (or the embedding, or the head) of one micro-batch in one direction: a square of the
// grid layer x micro-batch (arXiv 2406.15758, Fig. 4c).
struct Stage {
  std::string name;   // "layer 3", "layer 3 backward", "head"
  int32_t unit = -1;  // of weights; -1: none
  int32_t layer = -1;
  bool backward = false;
  bool recomputes = false;  // holds the forward work of its layer again
  bool joined = false;  // the next stage of the same micro-batch follows at once (head's blocks)
  std::vector<Op> ops;
  // A forward stage of a layer leaves this for its backward stage: a piece.
  int64_t kept_bytes = 0;
};

struct WeightUnit {
  std::string name;
  int64_t bytes = 0;
};

// Pieces on their way to the disk or back lie in so many slots.
inline constexpr int64_t kSpillSlots = 2;
// Whether the piece of the `layer`-th spilled layer (of `layers`) and the `row`-th micro-batch (of
// `group` that pass through a layer together) waits in its slot until it is used: among the last
// that are filled and the first that are used.
bool StaysInSlot(int64_t layer, int64_t layers, int64_t row, int64_t group);

struct Workload {
  std::string model, method;
  int64_t tokens = 0;         // of one micro-batch
  int64_t micro_batches = 1;  // of one step
  Recompute recompute = Recompute::kNone;
  std::vector<WeightUnit> units;
  // Of one micro-batch, in the order in which it depends: each stage needs the one before it.
  std::vector<Stage> stages;
  int64_t micro_bytes = 0;  // held by a micro-batch beside its pieces, from first to last stage
  int64_t slot_bytes = 0;   // of all slots, where there are any
  double filled = 1;        // share of a piece that the mean micro-batch fills, and that is written
  // Held through the run: adapter, gradients, optimiser state.
  int64_t state_bytes = 0;
  int64_t scratch_bytes = 0;    // working buffers
  int64_t runtime_bytes = 0;    // program, tokenizer, data
  double optimizer_gbytes = 0;  // 10^9 bytes that the optimiser's step moves

  int64_t weight_bytes() const;
  int64_t largest_unit() const;
  int64_t kept_layers() const;  // that leave pieces
  // Of one micro-batch, from forward to backward, with so many of the topmost pieces in memory (-1:
  // all of them).
  int64_t kept_bytes(int64_t layers_in_memory = -1) const;
  // Lowest layers whose pieces go to the disk then.
  int64_t spilled_layers(int64_t layers_in_memory) const;
  int64_t fixed_bytes() const { return state_bytes + scratch_bytes + runtime_bytes; }
};

nlohmann::ordered_json ToJson(const Workload& workload);

}  // namespace edgewise::plan
