// What this machine can do at best, measured in the same run as what is compared with it: integer
// dot products, fp32 multiply-adds, and reading memory. All threads of the context together.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "exec/context.h"

namespace edgewise::bench {

// Wall clock; with one thread, the time that this thread ran, so that other programs on the machine
// disturb a measurement less.
inline double Seconds(ExecContext& ctx) {
  timespec t;
  clock_gettime(ctx.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

#if defined(__x86_64__)
// 24 independent chains hide any latency; no memory is touched. Operations per call: kOps.
#define EW_PEAK_24(op)                                                                           \
  op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) \
      op(15) op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23)
#define EW_PEAK_12(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define EW_DP512(i) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #i "\n"
#define EW_DP256(i) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #i "\n"
#define EW_FMA512(i) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #i "\n"
#define EW_FMA256(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n"
#define EW_ZERO512(i) "vpxorq %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n"
#define EW_ZERO256(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n"
#define EW_MADD256(i)                      \
  "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n" \
  "vpmaddwd %%ymm14, %%ymm12, %%ymm12\n"   \
  "vpaddd %%ymm12, %%ymm" #i ", %%ymm" #i "\n"
#define EW_LOOP(zero, body)                                                                        \
  __asm__ volatile(zero "1:\n" body "dec %0\njnz 1b\nvzeroupper\n"                                 \
                   : "+r"(n)                                                                       \
                   :                                                                               \
                   : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                     "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
#define EW_ZERO_ALL512 EW_PEAK_24(EW_ZERO512) EW_ZERO512(30) EW_ZERO512(31)
#define EW_ZERO_ALL256 EW_PEAK_12(EW_ZERO256) EW_ZERO256(14) EW_ZERO256(15)

// Operations (a multiply-add is two) of `n` rounds.
inline double Int8Loop(Isa isa, int64_t n) {
  const double rounds = static_cast<double>(n);
  switch (isa) {
    case Isa::kAvx512Vnni:
      EW_LOOP(EW_ZERO_ALL512, EW_PEAK_24(EW_DP512));
      return rounds * 24 * 128;
    case Isa::kAvxVnni:
      EW_LOOP(EW_ZERO_ALL256, EW_PEAK_12(EW_DP256));
      return rounds * 12 * 64;
    default:
      EW_LOOP(EW_ZERO_ALL256, EW_PEAK_12(EW_MADD256));
      return rounds * 12 * 64;
  }
}
inline double Fp32Loop(Isa isa, int64_t n) {
  const double rounds = static_cast<double>(n);
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Vnni) {
    EW_LOOP(EW_ZERO_ALL512, EW_PEAK_24(EW_FMA512));
    return rounds * 24 * 32;
  }
  EW_LOOP(EW_ZERO_ALL256, EW_PEAK_12(EW_FMA256));
  return rounds * 12 * 16;
}
#else
inline double Int8Loop(Isa, int64_t) { return 0; }
inline double Fp32Loop(Isa, int64_t) { return 0; }
#endif

// Best of five, in operations per second; 0 where no loop is written for the processor.
template <typename Loop>
double Peak(ExecContext& ctx, Loop loop) {
  double best = 0;
  for (int trial = 0; trial < 5; ++trial) {
    constexpr int64_t kRounds = 1 << 20;
    std::vector<double> ops(static_cast<size_t>(ctx.threads()));
    const double begin = Seconds(ctx);
    ctx.pool().Run(ctx.threads(), [&](int64_t task, int) {
      ops[static_cast<size_t>(task)] = loop(ctx.isa(), kRounds);
    });
    const double seconds = Seconds(ctx) - begin;
    double total = 0;
    for (double o : ops) total += o;
    best = std::max(best, total / seconds);
  }
  return best;
}

inline double Int8Peak(ExecContext& ctx) { return Peak(ctx, Int8Loop); }
inline double Fp32Peak(ExecContext& ctx) { return Peak(ctx, Fp32Loop); }

// Bytes per second read from a buffer far larger than the caches; best of five.
inline double ReadBandwidth(ExecContext& ctx) {
  constexpr int64_t kBytes = int64_t{512} << 20, kChunk = int64_t{1} << 20;
  AlignedBuffer buffer(kBytes);
  ctx.ParallelFor(kBytes, kChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i += 8)
      buffer.as<uint64_t>()[i / 8] = static_cast<uint64_t>(i);
  });
  std::vector<uint64_t> sums(static_cast<size_t>(ctx.threads()) * 16);
  double best = 0;
  for (int trial = 0; trial < 5; ++trial) {
    const double begin = Seconds(ctx);
    ctx.ParallelFor(kBytes, kChunk, [&](int64_t from, int64_t to, int worker) {
      uint64_t lanes[32] = {};
      for (int64_t i = from; i < to; i += 256) {
        const uint64_t* p = buffer.as<uint64_t>() + i / 8;
        for (int l = 0; l < 32; ++l) lanes[l] += p[l];
      }
      for (uint64_t l : lanes) sums[static_cast<size_t>(worker) * 16] += l;
    });
    best = std::max(best, static_cast<double>(kBytes) / (Seconds(ctx) - begin));
  }
  return sums[0] == 1 ? 0 : best;  // the sums must not be optimised away
}

}  // namespace edgewise::bench
