// LUC policies (Edge-LLM, arXiv 2406.15758, section on layer-wise unified compression): pure
// functions from a sensitivity per layer to bits and sparsity per layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace edgewise::compress {

// Sparsities are never above this: a layer that is all zeros carries nothing.
inline constexpr double kMaxSparsity = 0.95;

// Eq. 1: b_j = B + 1 where s_j >= mean(s), else B.
std::vector<int> PaperBits(std::span<const double> sensitivity, int base_bits);

// The released rule: p_j = P L (1 - minmax(s_j)) / sum_k (1 - minmax(s_k)); values above
// kMaxSparsity are clamped and their excess shared in proportion to the room left, so that the mean
// stays P (P <= kMaxSparsity).
std::vector<double> PaperSparsity(std::span<const double> sensitivity, double target);

// Eq. 2 as printed, p_j = P L s_j / sum(s), clamped to [0, kMaxSparsity], nothing redistributed.
// It prunes sensitive layers most, against the text; kept for comparison only.
std::vector<double> PaperLiteralSparsity(std::span<const double> sensitivity, double target);

// Table 2's control: the same multiset of bits and the same mean sparsity as `bits` and `sparsity`,
// dealt to the layers at random.
struct LayerPolicy {
  std::vector<int> bits;
  std::vector<double> sparsity;
};
LayerPolicy RandomPolicy(const LayerPolicy& like, uint64_t seed);

}  // namespace edgewise::compress
