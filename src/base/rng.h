// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A number is a pure function of (seed, stream, counter), so nothing has to be
// saved for a run to resume bit-identically and results do not depend on the number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace edgewise {

// What a stream of numbers is for; part of the key. On disk by value: never renumber.
enum class RngStream : uint32_t {
  kDataOrder = 1,
  kDropout = 2,
  kInit = 3,
  kSampler = 4,
  kRounding = 5,
  kExitSchedule = 6,
  kTest = 7,
  kCalibration = 8,
  kPolicy = 9,
};

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class Rng {
 public:
  // `substream` separates uses of one stream, for example (layer, step) packed into 64 bits.
  Rng(uint64_t seed, RngStream stream, uint64_t substream = 0)
      : seed_(seed), stream_(static_cast<uint32_t>(stream)), substream_(substream) {}

  // The i-th block of four 32-bit numbers of this stream.
  std::array<uint32_t, 4> Block(uint64_t i) const;

  // Sequential use.
  uint32_t NextU32();
  uint64_t NextU64() {
    const uint64_t hi = NextU32();
    return (hi << 32) | NextU32();
  }
  // Uniform in [0, 1) with 53 (double) or 24 (float) random bits.
  double NextDouble() { return static_cast<double>(NextU64() >> 11) * 0x1.0p-53; }
  float NextFloat() { return static_cast<float>(NextU32() >> 8) * 0x1.0p-24f; }
  // Standard normal (Box-Muller, in double).
  double NextNormal();
  // Uniform in [0, n), unbiased. n > 0.
  uint64_t NextBelow(uint64_t n);

 private:
  uint64_t seed_;
  uint32_t stream_;
  uint64_t substream_;
  uint64_t index_ = 0;
  std::array<uint32_t, 4> block_{};
  bool has_spare_ = false;
  double spare_ = 0;
};

// A random permutation of 0..n-1 (Fisher-Yates), a pure function of the rng's state.
std::vector<int64_t> RandomPermutation(int64_t n, Rng rng);

}  // namespace edgewise
