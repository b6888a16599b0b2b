#include "schedule/cost.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace edgewise::schedule {
namespace {

using plan::Device;
using plan::KernelKind;
using plan::KernelRate;
using plan::Op;

constexpr int64_t kFewTokens = 8;
// Sparsities that are taken as the same.
constexpr double kSameSparsity = 0.02;

bool HasWeights(KernelKind kind) {
  return kind == KernelKind::kLinearForward || kind == KernelKind::kLinearBackward ||
         kind == KernelKind::kLinearBackwardInt8 || kind == KernelKind::kHeadLoss ||
         kind == KernelKind::kHeadLossInt8;
}

// What a kind is taken for where the profile does not know it; itself: nothing.
KernelKind Nearest(KernelKind kind) {
  switch (kind) {
    case KernelKind::kLinearBackwardInt8:
      return KernelKind::kLinearBackward;
    case KernelKind::kHeadLossInt8:
      return KernelKind::kHeadLoss;
    case KernelKind::kLoraBackward:
      return KernelKind::kLora;
    case KernelKind::kNorm:
    case KernelKind::kNormBackward:
    case KernelKind::kRotary:
    case KernelKind::kGate:
    case KernelKind::kGateBackward:
      return KernelKind::kElementwise;
    default:
      return kind;
  }
}

double Size(double out, double in) { return std::log(std::max(1.0, out * in)); }

// Entries of the kind with the bit-width nearest to `bits`, for as many tokens, sparse or dense.
std::vector<const KernelRate*> Entries(const Device& d, const Op& op, bool sparse) {
  std::vector<const KernelRate*> found;
  int nearest = 1 << 20;
  const bool few = op.tokens <= kFewTokens;
  for (const KernelRate& k : d.kernels) {
    if (k.kind != op.kind || (k.sparsity > 0) != sparse || (sparse && k.blocks != op.blocks)) {
      continue;
    }
    if (op.kind == KernelKind::kLinearForward && (k.tokens <= kFewTokens) != few && k.tokens != 0) {
      continue;
    }
    int distance = HasWeights(op.kind) ? std::abs(k.bits - op.bits) : 0;
    const bool lora = op.kind == KernelKind::kLora || op.kind == KernelKind::kLoraBackward;
    if (lora) distance = static_cast<int>(std::abs(k.rank - op.rank));
    if (distance < nearest) found.clear();
    if (distance <= nearest) found.push_back(&k);
    nearest = std::min(nearest, distance);
  }
  return found;
}

// Seconds per 10^9 operations, interpolated over the matrix's size.
double SecondsPer(const std::vector<const KernelRate*>& entries, const Op& op) {
  const KernelRate *below = nullptr, *above = nullptr;
  const double size = Size(static_cast<double>(op.out), static_cast<double>(op.in));
  const auto size_of = [](const KernelRate* k) {
    return Size(static_cast<double>(k->out), static_cast<double>(k->in));
  };
  for (const KernelRate* k : entries) {
    if (size_of(k) <= size && (below == nullptr || size_of(k) > size_of(below))) below = k;
    if (size_of(k) >= size && (above == nullptr || size_of(k) < size_of(above))) above = k;
  }
  if (below == nullptr) below = above;
  if (above == nullptr) above = below;
  if (below == nullptr) return 0;
  const double span = size_of(above) - size_of(below);
  const double share = span > 0 ? (size - size_of(below)) / span : 0;
  return (1 - share) / below->gops + share / above->gops;
}

}  // namespace

double WorkOf(const Op& op) {
  const auto n = static_cast<double>(op.tokens), out = static_cast<double>(op.out),
             in = static_cast<double>(op.in), rank = static_cast<double>(op.rank);
  const double values = 4e-9 * n * out;  // bytes of one array of a value per output
  switch (op.kind) {
    case KernelKind::kLora:  // two skinny products
      return 2e-9 * n * rank * (in + out);
    case KernelKind::kLoraBackward:  // four
      return 4e-9 * n * rank * (in + out);
    case KernelKind::kAttention:  // every token sees half of them on average
      return 2e-9 * n * n * out;
    case KernelKind::kAttentionBackward:
      return 5e-9 * n * n * out;
    case KernelKind::kHeadLoss:
    case KernelKind::kHeadLossInt8:  // logits and their gradient
      return 4e-9 * n * out * in;
    case KernelKind::kElementwise:
    case KernelKind::kNorm:
    case KernelKind::kRotary:
      return 2 * values;
    case KernelKind::kGate:
      return 3 * values;
    case KernelKind::kNormBackward:
      return 4 * values;
    case KernelKind::kGateBackward:
      return 5 * values;
    case KernelKind::kOptimizer:
      return op.gops;
    default:
      return 2e-9 * n * out * in;
  }
}

const KernelRate* ExactRate(const Device& d, const Op& op) {
  for (const KernelRate& k : d.kernels) {
    if (k.kind != op.kind || k.tokens != op.tokens || k.out != op.out || k.in != op.in ||
        k.rank != op.rank) {
      continue;
    }
    if (HasWeights(op.kind) &&
        (k.bits != op.bits || std::abs(k.sparsity - op.sparsity) > kSameSparsity ||
         (op.sparsity > 0 && k.blocks != op.blocks))) {
      continue;
    }
    return &k;
  }
  return nullptr;
}

double Rate(const Device& d, const Op& asked) {
  if (const KernelRate* exact = ExactRate(d, asked)) return exact->gops;
  Op op = asked;
  while (Nearest(op.kind) != op.kind && Entries(d, op, false).empty()) op.kind = Nearest(op.kind);
  const double dense = SecondsPer(Entries(d, op, false), op);
  if (op.sparsity <= 0) return dense > 0 ? 1 / dense : 0;
  const std::vector<const KernelRate*> entries = Entries(d, op, true);
  const double sparse = SecondsPer(entries, op);
  if (sparse <= 0) return dense > 0 ? 1 / dense : 0;
  if (dense <= 0) return 1 / sparse;
  // Linear in what is left of the weights, from dense to the measured sparsity and beyond.
  const double slope = (sparse - dense) / entries.front()->sparsity;
  const double seconds = std::max(dense + slope * op.sparsity, 0.1 * std::min(dense, sparse));
  return 1 / seconds;
}

Tiling BestTiling(const Op& op, int64_t sram_bytes, double activation_bytes) {
  const auto tokens = static_cast<double>(op.tokens), in = static_cast<double>(op.in),
             out = static_cast<double>(op.out);
  const double per_row = static_cast<double>(op.weight_bytes) / std::max(out, 1.0);
  Tiling best;
  best.bytes = std::numeric_limits<double>::infinity();
  // Tiles hold whole rows of the sum: no partial result crosses the border. Half of the memory is
  // for what comes next.
  const double room = 0.5 * static_cast<double>(sram_bytes);
  for (int64_t t = 1; t <= op.tokens * 2; t *= 2) {
    const double tile = std::min<double>(static_cast<double>(t), tokens);
    // Rows of X in pieces of the inner dimension when they do not fit as a whole.
    const double x = tile * in * activation_bytes;
    for (int64_t o = 16; o < op.out * 2; o *= 2) {
      const double rows = std::min<double>(static_cast<double>(o), out);
      // Partial sums stay on chip (fp32), operands pass in pieces of at least 64 columns.
      const double slice = 64 * (tile * activation_bytes + rows * per_row / std::max(in, 1.0));
      if (tile * rows * 4 + slice > room) continue;
      const double passes_w = std::ceil(tokens / tile), passes_x = std::ceil(out / rows);
      const double y = tokens * out * 4;
      const double whole_x =
          x + rows * per_row <= room && tile * rows * 4 + x <= room ? 1 : passes_x;
      // Weights outside: each weight once per tile of tokens; X once per tile of rows, unless the
      // tile of tokens stays.
      const double bytes = static_cast<double>(op.weight_bytes) * passes_w +
                           tokens * in * activation_bytes * whole_x + y;
      if (bytes < best.bytes) {
        best = {static_cast<int64_t>(tile), static_cast<int64_t>(rows), passes_w <= passes_x,
                bytes};
      }
    }
  }
  return best;
}

OpCost CostOf(const Device& d, const Op& op) {
  OpCost cost;
  cost.bound = "compute";
  if (op.gops <= 0) return cost;
  if (plan::CountsBytes(op.kind)) {
    const double rate = Rate(d, op);
    const double gbps = rate > 0 ? rate : d.memory().read_gbps;
    cost.seconds = cost.memory_seconds = op.gops / gbps;
    cost.bound = d.memory().name;
    return cost;
  }
  const double rate = Rate(d, op);
  cost.compute_seconds = op.gops / (rate > 0 ? rate : std::max(d.fp32_gflops, 1e-3));
  cost.seconds = cost.compute_seconds;
  if (d.simulated && d.levels.size() > 2) {
    const plan::MemoryLevel& chip = d.levels[d.levels.size() - 3];
    const double activation = op.kind == KernelKind::kLinearForward && op.bits < 16 ? 1 : 2;
    if (HasWeights(op.kind) || op.kind == KernelKind::kWeightGradient) {
      cost.memory_seconds =
          op.share * BestTiling(op, chip.bytes, activation).bytes * 1e-9 / chip.read_gbps;
    }
    if (cost.memory_seconds > cost.seconds) {
      cost.seconds = cost.memory_seconds;
      cost.bound = d.memory().name;
    }
  }
  return cost;
}

OpCost CostOf(const Device& d, const plan::Stage& stage) {
  OpCost sum;
  double by_memory = 0;
  for (const Op& op : stage.ops) {
    const OpCost c = CostOf(d, op);
    sum.seconds += c.seconds;
    sum.compute_seconds += c.compute_seconds;
    sum.memory_seconds += c.memory_seconds;
    if (c.bound != "compute") by_memory += c.seconds;
  }
  sum.bound = 2 * by_memory > sum.seconds ? d.memory().name : "compute";
  return sum;
}

}  // namespace edgewise::schedule
