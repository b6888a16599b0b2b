#include "compress/policy.h"

#include <algorithm>
#include <numeric>

#include "base/rng.h"

namespace edgewise::compress {

std::vector<int> PaperBits(std::span<const double> s, int base_bits) {
  const double mean =
      std::accumulate(s.begin(), s.end(), 0.0) / static_cast<double>(std::max<size_t>(1, s.size()));
  std::vector<int> bits;
  bits.reserve(s.size());
  for (double x : s) bits.push_back(base_bits + (x >= mean ? 1 : 0));
  return bits;
}

std::vector<double> PaperSparsity(std::span<const double> s, double target) {
  if (s.empty()) return {};
  const auto [lo, hi] = std::minmax_element(s.begin(), s.end());
  std::vector<double> p;
  p.reserve(s.size());
  double total = 0;
  for (double x : s) {
    p.push_back(*hi > *lo ? 1.0 - (x - *lo) / (*hi - *lo) : 1.0);
    total += p.back();
  }
  const double sum = target * static_cast<double>(s.size());
  double clamped = 0, room = 0;
  for (double& x : p) {
    x = std::min(x / total * sum, kMaxSparsity);
    clamped += x;
    room += kMaxSparsity - x;
  }
  const double excess = sum - clamped;
  if (excess > 1e-12 && room > 0) {
    for (double& x : p) x += excess * (kMaxSparsity - x) / room;
  }
  return p;
}

std::vector<double> PaperLiteralSparsity(std::span<const double> s, double target) {
  const double total = std::accumulate(s.begin(), s.end(), 0.0);
  std::vector<double> p;
  p.reserve(s.size());
  for (double x : s) {
    const double raw = total > 0 ? target * static_cast<double>(s.size()) * x / total : target;
    p.push_back(std::clamp(raw, 0.0, kMaxSparsity));
  }
  return p;
}

LayerPolicy RandomPolicy(const LayerPolicy& like, uint64_t seed) {
  LayerPolicy out = like;
  const auto n = static_cast<int64_t>(like.bits.size());
  const auto bits = RandomPermutation(n, Rng(seed, RngStream::kPolicy, 0));
  const auto sparsity = RandomPermutation(static_cast<int64_t>(like.sparsity.size()),
                                          Rng(seed, RngStream::kPolicy, 1));
  for (size_t i = 0; i < bits.size(); ++i) out.bits[i] = like.bits[static_cast<size_t>(bits[i])];
  for (size_t i = 0; i < sparsity.size(); ++i) {
    out.sparsity[i] = like.sparsity[static_cast<size_t>(sparsity[i])];
  }
  return out;
}

}  // namespace edgewise::compress
