#if defined(__x86_64__)
#include "kernels/dot_loop.h"

#include <immintrin.h>

namespace edgewise::kernels::avxvnni {

int64_t DotLoop(int64_t rounds) {
  // Independent sums, so that the latency of one instruction does not show.
  constexpr int kSums = 16;
  __m256i sums[kSums], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) {
    sums[i] = _mm256_set1_epi8(0);
    // Unknown from here on, or the compiler would see that all sums are one.
    __asm__ volatile("" : "+x"(sums[i]));
  }
  for (int64_t r = 0; r < rounds; ++r) {
    // The operands are unknown to the compiler in each round, so none can be left out.
    __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm256_dpbusd_avx_epi32(sums[i], a, b);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) __asm__ volatile("" : : "x"(sums[i]));
  return rounds * kSums * 64;
}

}  // namespace edgewise::kernels::avxvnni
#endif
