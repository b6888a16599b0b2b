// Integer products of a panel and rounded activations. Part of body.inl.h.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

constexpr int kLanes = 16 / kVecs;

// Partial sums keep enough independent chains in flight for the latency of a dot product.
template <int T, int R>
constexpr int Chains() {
  constexpr int wide = T * R * kVecs;
  return wide >= 8 ? 1 : wide >= 4 ? 2 : 4;
}

// What sums start from that start from nothing.
alignas(64) const float kZeros[kPanelTiles * 16] = {};

// Whether the next segment has another activation scale.
EW_INLINE bool EndsSpan(const TileProduct& p, int64_t segment) {
  return segment + 1 == p.segment_count ||
         p.segments[segment + 1].act_group != p.segments[segment].act_group;
}

// Where sums are between segments: C, or registers (for short segments, where there are enough
// registers for that), then with or without mins.
enum class Sums { kAway, kKept, kKeptWithMins };

// kSteps: TileProduct::steps, at most 32, or 0. With kSteps nothing is waited for at the start of a
// segment, and nothing is converted (SumCorrection). kCorrected: what is added is read.
//
// Tiles [tile, tile + T) and rows [row, row + blocks R).
template <int T, int R, bool kSignedW, bool kGrouped, Sums kSums, int kSteps, bool kCorrected>
EW_NOINLINE void TileKernel(const TileProduct& product, int tile, int row, int blocks) {
  // A copy of our own: no store can change what is in it.
  TileProduct p = product;
  p.w += tile * p.w_stride;
  p.w_scales += tile * p.scale_stride;
  if (kSums == Sums::kKeptWithMins) p.w_mins += tile * p.scale_stride;
  p.a += row * p.a_stride;
  p.sums += row * p.sums_stride;
  p.a_scales += row * p.a_scales_stride;
  p.c += row * p.ldc + int64_t{16} * tile;
  if (p.before == nullptr) {
    p.before = kZeros;
    p.ld_before = 0;
  } else {
    p.before += row * p.ld_before + int64_t{16} * tile;
  }
  constexpr int S = Chains<T, R>(), kV = T * kVecs;
  constexpr bool kKeep = kSums != Sums::kAway;
  if (kCorrected) p.corrections += row / R * p.corrections_stride;
  const int64_t w_stride = p.w_stride, a_stride = p.a_stride;
  for (; blocks > 0; --blocks) {
    const uint8_t* w = p.w;
    const float* old = p.before;
    int64_t old_stride = p.ld_before;
    // Far away: on their way while the sums are made. Rows without gaps the processor fetches by
    // itself.
    const auto fetch = [&](const float* rows, int64_t ld) EW_LAMBDA_INLINE {
      if (ld <= int64_t{16} * p.tiles) return;
      for (int r = 0; r < R; ++r) {
        for (int t = 0; t < kV; ++t) __builtin_prefetch(rows + r * ld + t * kLanes);
      }
    };
    fetch(old, old_stride);
    if (p.c != old) fetch(p.c, p.ldc);
    VF span[kKeep ? R : 1][kV];
    if constexpr (kKeep) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < kV; ++t) {
          span[r][t] = kGrouped ? SetF(0.0f) : LoadF(old + r * old_stride + t * kLanes);
        }
      }
    }
    for (int64_t g = 0; g < p.segment_count; ++g) {
      const Segment seg = p.segments[g];
      const Run* run = p.runs + seg.first_run;
      int32_t sums[R];
      if constexpr (kCorrected) {
        // They are in the corrections.
      } else if constexpr (kSteps != 0) {
        const auto begin = static_cast<uint32_t>(run->step) / 4;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const int32_t* prefix = p.sums + r * p.sums_stride + begin;
          sums[r] = prefix[kSteps / 4] - prefix[0];
        }
      } else {
        for (int r = 0; r < R; ++r) sums[r] = 0;
        for (const Run* x = run; x != run + seg.runs; ++x) {
          const auto begin = static_cast<uint32_t>(x->step) / 4;
          const auto end = begin + static_cast<uint32_t>(x->steps) / 4;
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            sums[r] += p.sums[r * p.sums_stride + end] - p.sums[r * p.sums_stride + begin];
            // Mostly one run: vector code for many would cost more than the whole segment.
            __asm__("" : "+r"(sums[r]));
          }
        }
      }
      VI acc[S][R][kV];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        VI start;
        if constexpr (kSteps != 0) {
          start = SetI(kSumStart);
        } else {
          start = SetI(-p.zero * sums[r]);
        }
#pragma GCC unroll 16
        for (int t = 0; t < kV; ++t) {
          acc[0][r][t] = start;
#pragma GCC unroll 4
          for (int u = 1; u < S; ++u) acc[u][r][t] = SetI(0);
        }
      }
      // Two pointers for the rows: with one the compiler runs out of registers for the others.
      const auto step = [&](const int8_t* a, const int8_t* a3, int u) EW_LAMBDA_INLINE {
        VI wv[kV];
#pragma GCC unroll 16
        for (int t = 0; t < kV; ++t) {
          wv[t] = LoadI(w + t / kVecs * w_stride + u * 64 + t % kVecs * kVecBytes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const VI av = BroadcastI((r < 3 ? a : a3) + r % 3 * a_stride + u * 4);
#pragma GCC unroll 16
          for (int t = 0; t < kV; ++t) {
            acc[u % S][r][t] = Dot<kSignedW>(acc[u % S][r][t], wv[t], av);
          }
        }
      };
      if constexpr (kSteps != 0) {
        const int8_t* a = p.a + int64_t{4} * run->step;
#pragma GCC unroll 1
        for (int i = 0; i < kSteps; i += 8, w += 512, a += 32) {
          const int8_t* a3 = a + 3 * a_stride;
          __asm__("" : "+r"(a3));
#pragma GCC unroll 8
          for (int u = 0; u < 8; ++u) step(a, a3, u);
        }
      } else {
        // At least one run of at least four steps: without a way around the loops the compiler
        // keeps every sum in one register.
        const Run* const last = run + seg.runs;
        do {
          const int8_t* a = p.a + int64_t{4} * run->step;
          const int8_t* const end = a + int64_t{4} * run->steps;
          do {
#pragma GCC unroll 4
            for (int u = 0; u < S; ++u) step(a, a + 3 * a_stride, u);
            w += 64 * S;
            a += 4 * S;
          } while (a != end);
        } while (++run != last);
      }
      const int64_t group = int64_t{16} * seg.weight_group;
      VF w_scales[kV];
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) {
        w_scales[t] = LoadF(p.w_scales + group + t / kVecs * p.scale_stride + t % kVecs * kLanes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        VF correction;
        if constexpr (kCorrected) {
          correction = AsF(SetI(p.corrections[g * kCorrectionRows + r]));
        } else if constexpr (kSteps != 0) {
          correction = AsF(SetI(SumCorrection(p.zero, sums[r])));
        }
#pragma GCC unroll 16
        for (int t = 0; t < kV; ++t) {
          VI total = acc[0][r][t];
#pragma GCC unroll 4
          for (int u = 1; u < S; ++u) total = AddI(total, acc[u][r][t]);
          VF exact;
          if constexpr (kSteps != 0) {
            exact = AddF(AsF(total), correction);
          } else {
            exact = ToF(total);
          }
          if constexpr (kKeep) {
            span[r][t] = FmaF(exact, w_scales[t], span[r][t]);
          } else {
            float* c = p.c + r * p.ldc + t * kLanes;
            const VF before = LoadF(old + r * old_stride + t * kLanes);
            if constexpr (kGrouped) {
              const VF a_scale = SetF(p.a_scales[r * p.a_scales_stride + seg.act_group]);
              StoreF(c, FmaF(MulF(exact, w_scales[t]), a_scale, before));
            } else {
              StoreF(c, FmaF(exact, w_scales[t], before));
            }
          }
        }
      }
      if constexpr (kSums == Sums::kKeptWithMins) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const VF count = SetF(static_cast<float>(sums[r]));
#pragma GCC unroll 16
          for (int t = 0; t < kV; ++t) {
            const int64_t lane = t / kVecs * p.scale_stride + t % kVecs * kLanes;
            span[r][t] = FmaF(LoadF(p.w_mins + group + lane), count, span[r][t]);
          }
        }
      }
      if constexpr (kKeep && kGrouped) {
        if (!EndsSpan(p, g)) continue;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const VF a_scale = SetF(p.a_scales[r * p.a_scales_stride + seg.act_group]);
#pragma GCC unroll 16
          for (int t = 0; t < kV; ++t) {
            const VF before = LoadF(old + r * old_stride + t * kLanes);
            StoreF(p.c + r * p.ldc + t * kLanes, FmaF(span[r][t], a_scale, before));
            span[r][t] = SetF(0.0f);
          }
        }
      }
      old = p.c;
      old_stride = p.ldc;
    }
    if constexpr (kKeep && !kGrouped) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < kV; ++t) StoreF(p.c + r * p.ldc + t * kLanes, span[r][t]);
      }
    }
    p.a += R * p.a_stride;
    p.sums += R * p.sums_stride;
    p.a_scales += R * p.a_scales_stride;
    p.c += R * p.ldc;
    p.before += R * p.ld_before;
    if (kCorrected) p.corrections += p.corrections_stride;
  }
}

template <int T, int R, bool kGrouped, Sums kSums, bool kCorrected>
void TileKernelShort(const TileProduct& p, int tile, int row, int blocks) {
  if (p.steps == 8) {
    // By blocks: a loop around so many segments takes registers from the sums.
    for (; blocks > 0; --blocks, row += R) {
      TileKernel<T, R, false, kGrouped, kSums, 8, kCorrected>(p, tile, row, 1);
    }
  } else if (p.steps == 16) {
    TileKernel<T, R, false, kGrouped, kSums, 16, kCorrected>(p, tile, row, blocks);
  } else {
    TileKernel<T, R, false, kGrouped, kSums, 32, kCorrected>(p, tile, row, blocks);
  }
}

template <int T, int R, bool kSignedW, bool kGrouped, Sums kSums>
void TileKernelSteps(const TileProduct& p, int tile, int row, int blocks) {
  // Code of their own for the calls that do most of the work.
  if constexpr (R == kMaxProductRows && !kSignedW && kSums != Sums::kAway && T > 1) {
    if (p.steps == 8 || p.steps == 16 || p.steps == 32) {
      if constexpr (kSums == Sums::kKept) {
        if (p.corrections != nullptr) {
          return TileKernelShort<T, R, kGrouped, kSums, true>(p, tile, row, blocks);
        }
      }
      return TileKernelShort<T, R, kGrouped, kSums, false>(p, tile, row, blocks);
    }
  }
  TileKernel<T, R, kSignedW, kGrouped, kSums, 0, false>(p, tile, row, blocks);
}

template <int T, int R, bool kSignedW, Sums kSums>
void TileKernelScales(const TileProduct& p, int tile, int row, int blocks) {
  if (p.grouped) return TileKernelSteps<T, R, kSignedW, true, kSums>(p, tile, row, blocks);
  TileKernelSteps<T, R, kSignedW, false, kSums>(p, tile, row, blocks);
}

// All rows of tiles [tile, tile + T).
template <int T, bool kSignedW, Sums kSums>
void TileKernelRows(const TileProduct& p, int tile) {
  if constexpr (kRowByRow) {
    TileKernelScales<T, 1, kSignedW, kSums>(p, tile, 0, p.rows);
  } else {
    const int blocks = p.rows / kMaxProductRows, row = blocks * kMaxProductRows;
    if (blocks > 0) TileKernelScales<T, kMaxProductRows, kSignedW, kSums>(p, tile, 0, blocks);
    switch (p.rows - row) {
      case 1:
        return TileKernelScales<T, 1, kSignedW, kSums>(p, tile, row, 1);
      case 2:
        return TileKernelScales<T, 2, kSignedW, kSums>(p, tile, row, 1);
      case 3:
        return TileKernelScales<T, 3, kSignedW, kSums>(p, tile, row, 1);
      case 4:
        return TileKernelScales<T, 4, kSignedW, kSums>(p, tile, row, 1);
      case 5:
        return TileKernelScales<T, 5, kSignedW, kSums>(p, tile, row, 1);
      default:
        return;
    }
  }
}

// kTiles at a time, then one by one.
template <int kTiles, bool kSignedW, Sums kSums>
void TileProductBy(const TileProduct& p) {
  int tile = 0;
  for (; tile + kTiles <= p.tiles; tile += kTiles) TileKernelRows<kTiles, kSignedW, kSums>(p, tile);
  if constexpr (kTiles > 1) {
    for (; tile < p.tiles; ++tile) TileKernelRows<1, kSignedW, kSums>(p, tile);
  }
}

template <bool kSignedW>
void TileProductAny(const TileProduct& p) {
  constexpr int kKeep = kKeepTiles > 0 ? kKeepTiles : 1;
  if (p.w_mins != nullptr) return TileProductBy<kKeep, kSignedW, Sums::kKeptWithMins>(p);
  // C is far from the registers, but the larger tile without room for sums needs fewer loads.
  const bool away =
      p.segment_count == 1 || (p.grouped ? !p.spans && p.mean_steps >= 24 : p.mean_steps >= 64);
  if (!away && (kKeepTiles > 0 || p.grouped)) return TileProductBy<kKeep, kSignedW, Sums::kKept>(p);
  TileProductBy<kPanelTiles, kSignedW, Sums::kAway>(p);
}

void TileProductFn(const TileProduct& p) {
  if (kSignedPanel8 && p.signed_w) return TileProductAny<kSignedPanel8>(p);
  TileProductAny<false>(p);
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
