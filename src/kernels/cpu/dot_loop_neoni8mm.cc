#if defined(__aarch64__)
#include "kernels/dot_loop.h"

#include <arm_neon.h>

namespace edgewise::kernels::neoni8mm {

int64_t DotLoop(int64_t rounds) {
  // Independent sums, so that the latency of one instruction does not show.
  constexpr int kSums = 16;
  int32x4_t sums[kSums], a = vdupq_n_s32(1), b = vdupq_n_s32(1);
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) {
    sums[i] = vdupq_n_s32(0);
    // Unknown from here on, or the compiler would see that all sums are one.
    __asm__ volatile("" : "+w"(sums[i]));
  }
  for (int64_t r = 0; r < rounds; ++r) {
    // The operands are unknown to the compiler in each round, so none can be left out.
    __asm__ volatile("" : "+w"(a), "+w"(b));
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i)
      sums[i] = vmmlaq_s32(sums[i], vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) __asm__ volatile("" : : "w"(sums[i]));
  return rounds * kSums * 64;
}

}  // namespace edgewise::kernels::neoni8mm
#endif
