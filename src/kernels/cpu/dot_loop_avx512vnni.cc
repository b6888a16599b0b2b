#if defined(__x86_64__)
#include "kernels/dot_loop.h"

#include <immintrin.h>

namespace edgewise::kernels::avx512vnni {

int64_t DotLoop(int64_t rounds) {
  // Independent sums, so that the latency of one instruction does not show.
  constexpr int kSums = 16;
  __m512i sums[kSums], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) {
    sums[i] = _mm512_set1_epi8(0);
    // Unknown from here on, or the compiler would see that all sums are one.
    __asm__ volatile("" : "+v"(sums[i]));
  }
  for (int64_t r = 0; r < rounds; ++r) {
    // The operands are unknown to the compiler in each round, so none can be left out.
    __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) __asm__ volatile("" : : "v"(sums[i]));
  return rounds * kSums * 128;
}

}  // namespace edgewise::kernels::avx512vnni
#endif
