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

// What C holds before a product that starts it.
alignas(64) const float kZeros[kPanelTiles * 16] = {};

// kKeep: C stays in registers from segment to segment (for short segments, where there are enough
// registers for that).
template <int T, int R, bool kSignedW, bool kGrouped, bool kKeep>
void TileKernel(const TileProduct& p) {
  constexpr int S = Chains<T, R>(), kV = T * kVecs;
  const uint8_t* w = p.w;
  const int64_t w_stride = p.w_stride, a_stride = p.a_stride;
  const float* old = p.fresh ? kZeros : p.c;
  int64_t old_stride = p.fresh ? 0 : p.ldc;
  // Results lie in the level 2 cache: on their way while the sums are made.
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < kV; ++t) __builtin_prefetch(p.c + r * p.ldc + t * kLanes);
  }
  VF kept[kKeep ? R : 1][kV];
  if constexpr (kKeep) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) kept[r][t] = LoadF(old + r * old_stride + t * kLanes);
    }
  }
  for (int64_t g = 0; g < p.segment_count; ++g) {
    const Segment seg = p.segments[g];
    const Run* run = p.runs + seg.first_run;
    int32_t sums[R];
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
    VI acc[S][R][kV];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VI start = SetI(-p.zero * sums[r]);
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) {
        acc[0][r][t] = start;
#pragma GCC unroll 4
        for (int u = 1; u < S; ++u) acc[u][r][t] = SetI(0);
      }
    }
    // At least one run of at least four steps: without a way around the loops the compiler keeps
    // every sum in one register.
    const Run* const last = run + seg.runs;
    do {
      const int8_t* a = p.a + int64_t{4} * run->step;
      const int8_t* const end = a + int64_t{4} * run->steps;
      do {
#pragma GCC unroll 4
        for (int u = 0; u < S; ++u) {
          VI wv[kV];
#pragma GCC unroll 16
          for (int t = 0; t < kV; ++t) {
            wv[t] = LoadI(w + t / kVecs * w_stride + u * 64 + t % kVecs * kVecBytes);
          }
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const VI av = BroadcastI(a + r * a_stride + u * 4);
#pragma GCC unroll 16
            for (int t = 0; t < kV; ++t) acc[u][r][t] = Dot<kSignedW>(acc[u][r][t], wv[t], av);
          }
        }
        w += 64 * S;
        a += 4 * S;
      } while (a != end);
    } while (++run != last);
    const float* scales = p.w_scales + int64_t{16} * seg.weight_group;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) {
        VI total = acc[0][r][t];
#pragma GCC unroll 4
        for (int u = 1; u < S; ++u) total = AddI(total, acc[u][r][t]);
        float* c = p.c + r * p.ldc + t * kLanes;
        VF scale = LoadF(scales + t / kVecs * p.scale_stride + t % kVecs * kLanes);
        if constexpr (kGrouped) {
          scale = MulF(scale, SetF(p.a_scales[r * p.a_scales_stride + seg.act_group]));
        }
        if constexpr (kKeep) {
          kept[r][t] = FmaF(ToF(total), scale, kept[r][t]);
        } else {
          StoreF(c, FmaF(ToF(total), scale, LoadF(old + r * old_stride + t * kLanes)));
        }
      }
    }
    old = p.c;
    old_stride = p.ldc;
    if (!kKeep && p.w_mins != nullptr) {
      const float* mins = p.w_mins + int64_t{16} * seg.weight_group;
      for (int r = 0; r < R; ++r) {
        float* c = p.c + r * p.ldc;
        const float a_scale = kGrouped ? p.a_scales[r * p.a_scales_stride + seg.act_group] : 1.0f;
        const VF sum = SetF(static_cast<float>(sums[r]) * a_scale);
        for (int t = 0; t < T * kVecs; ++t) {
          const VF min = LoadF(mins + t / kVecs * p.scale_stride + t % kVecs * kLanes);
          StoreF(c + t * kLanes, FmaF(min, sum, LoadF(c + t * kLanes)));
        }
      }
    }
  }
  if constexpr (kKeep) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) StoreF(p.c + r * p.ldc + t * kLanes, kept[r][t]);
    }
  }
}

template <int T, int R, bool kSignedW, bool kKeep>
void TileKernel(const TileProduct& p) {
  if (p.grouped) return TileKernel<T, R, kSignedW, true, kKeep>(p);
  TileKernel<T, R, kSignedW, false, kKeep>(p);
}

template <int T, bool kSignedW, bool kKeep>
void TileKernelRows(const TileProduct& p) {
  switch (p.rows) {
    case 1:
      return TileKernel<T, 1, kSignedW, kKeep>(p);
    case 2:
      return TileKernel<T, 2, kSignedW, kKeep>(p);
    case 3:
      return TileKernel<T, 3, kSignedW, kKeep>(p);
    case 4:
      return TileKernel<T, 4, kSignedW, kKeep>(p);
    case 5:
      return TileKernel<T, 5, kSignedW, kKeep>(p);
    default:
      return TileKernel<T, 6, kSignedW, kKeep>(p);
  }
}

template <bool kSignedW>
void TileProductAny(const TileProduct& p) {
  TileProduct rest = p;
  const bool keep = p.segment_count > 1 && p.w_mins == nullptr;
  while (rest.tiles > 0) {
    int done = 1;
    if (kKeepTiles > 1 && keep && rest.tiles >= kKeepTiles) {
      done = kKeepTiles;
      TileKernelRows<kKeepTiles == 0 ? 1 : kKeepTiles, kSignedW, kKeepTiles != 0>(rest);
    } else if (kPanelTiles > 1 && rest.tiles >= kPanelTiles) {
      done = kPanelTiles;
      TileKernelRows<kPanelTiles, kSignedW, false>(rest);
    } else if (kKeepTiles > 0 && keep) {
      TileKernelRows<1, kSignedW, kKeepTiles != 0>(rest);
    } else {
      TileKernelRows<1, kSignedW, false>(rest);
    }
    rest.tiles -= done;
    rest.w += done * rest.w_stride;
    rest.w_scales += done * rest.scale_stride;
    if (rest.w_mins != nullptr) rest.w_mins += done * rest.scale_stride;
    rest.c += done * 16;
  }
}

void TileProductFn(const TileProduct& p) {
  if (kSignedPanel8 && p.signed_w) return TileProductAny<kSignedPanel8>(p);
  TileProductAny<false>(p);
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
