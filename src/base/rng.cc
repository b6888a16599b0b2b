#include "base/rng.h"

#include <cmath>
#include <numbers>
#include <numeric>

namespace edgewise {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  constexpr uint32_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMul0} * c[0];
    const uint64_t p1 = uint64_t{kMul1} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

std::array<uint32_t, 4> Rng::Block(uint64_t i) const {
  // The stream goes into the key's high half so that streams of one seed never overlap.
  const uint32_t key0 = static_cast<uint32_t>(seed_) ^ (stream_ * 0x85EBCA6Bu);
  const uint32_t key1 = static_cast<uint32_t>(seed_ >> 32) ^ (stream_ * 0xC2B2AE35u);
  return Philox4x32({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32),
                     static_cast<uint32_t>(substream_), static_cast<uint32_t>(substream_ >> 32)},
                    {key0, key1});
}

uint32_t Rng::NextU32() {
  const uint64_t lane = index_ & 3;
  if (lane == 0) block_ = Block(index_ >> 2);
  ++index_;
  return block_[lane];
}

double Rng::NextNormal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double u = 1.0 - NextDouble();  // (0, 1]
  const double v = NextDouble();
  const double r = std::sqrt(-2.0 * std::log(u));
  spare_ = r * std::sin(2.0 * std::numbers::pi * v);
  has_spare_ = true;
  return r * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t Rng::NextBelow(uint64_t n) {
  // Rejection from the largest multiple of n: exact, and a rejection is rare.
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  uint64_t x;
  do {
    x = NextU64();
  } while (x >= limit);
  return x % n;
}

std::vector<int64_t> RandomPermutation(int64_t n, Rng rng) {
  std::vector<int64_t> p(static_cast<size_t>(n));
  std::iota(p.begin(), p.end(), int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {
    const auto j = static_cast<int64_t>(rng.NextBelow(static_cast<uint64_t>(i) + 1));
    std::swap(p[static_cast<size_t>(i)], p[static_cast<size_t>(j)]);
  }
  return p;
}

}  // namespace edgewise
