// Products of one row with tiles straight from memory: codes never leave the registers. Part of
// body.inl.h.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

// Bytes ahead of what is used that are asked for.
constexpr int64_t kDecodeAhead = 4096;
constexpr int64_t kScalesAhead = 1024;
// Independent partial sums: one row alone would wait for the latency of every dot product.
constexpr int kDecodeChains = 4;

// Lanes of vector v of a group's factors.
EW_INLINE VF FactorAt(const TileDecode& d, const TileDecode::Factors& f, int32_t group, int v) {
  const int64_t at = int64_t{16} * group + v * kLanes;
  if (f.bytes != nullptr) {
    if (v == 0) __builtin_prefetch(f.bytes + at + kScalesAhead);
    const int64_t super = int64_t{16} * (group >> d.super_shift) + v * kLanes;
    return MulF(LoadHalf(f.halves + 2 * super), ToF(LoadInt8(f.bytes + at)));
  }
  if (f.halves == nullptr) return LoadF(f.floats + at);
  if (v == 0) __builtin_prefetch(f.halves + 2 * at + kScalesAhead);
  return LoadHalf(f.halves + 2 * at);
}
EW_INLINE VF ScaleAt(const TileDecode& d, int32_t group, int v) {
  return FactorAt(d, d.scales, group, v);
}

template <bool kGrouped>
EW_INLINE void StartSums(const TileDecode& d, VF (&c)[kVecs], VF (&span)[kVecs]) {
#pragma GCC unroll 4
  for (int v = 0; v < kVecs; ++v) {
    span[v] = SetF(0.0f);
    c[v] = kGrouped ? LoadF(d.c + v * kLanes) : span[v];
  }
}

// At the end of a span its sum joins the others.
EW_INLINE void EndSegment(const TileDecode& d, int64_t segment, VF (&c)[kVecs], VF (&span)[kVecs]) {
  const int32_t group = d.segments[segment].act_group;
  if (segment + 1 != d.segment_count && d.segments[segment + 1].act_group == group) return;
#pragma GCC unroll 4
  for (int v = 0; v < kVecs; ++v) {
    c[v] = FmaF(span[v], SetF(d.a_scales[group]), c[v]);
    span[v] = SetF(0.0f);
  }
}

// Codes of all steps of a unit, from dense planes.
template <int BITS>
struct DenseSource {
  const uint8_t* at;
  explicit DenseSource(const TileDecode& d) : at(d.values[0]) {}
  template <int T>
  EW_INLINE VI Step(int v) const {
    const VI code = CodeAt<BITS, T>(at + v * kVecBytes);
    return BITS == 8 && kSignedPanel8 ? XorI(code, SetB(0x80)) : code;
  }
  EW_INLINE void Next() {
    at += 64 * BITS;
#pragma GCC unroll 8
    for (int l = 0; l < BITS; ++l) __builtin_prefetch(at + kDecodeAhead + 64 * l);
  }
};

template <int BITS, bool kGrouped>
void DecodeDenseKernel(const TileDecode& d) {
  constexpr bool kSignedW = BITS == 8 && kSignedPanel8;
  DenseSource<BITS> source(d);
  VF c[kVecs], span[kVecs];
  StartSums<kGrouped>(d, c, span);
  for (int64_t g = 0; g < d.segment_count; ++g) {
    const Segment seg = d.segments[g];
    const Run run = d.runs[seg.first_run];
    const auto begin = static_cast<uint32_t>(run.step) / 4;
    int64_t units = (static_cast<uint32_t>(run.steps) + 7) / 8;
    const int32_t sum = d.sums[begin + 2 * units] - d.sums[begin];
    const int8_t* a = d.a + int64_t{4} * run.step;
    VI acc[kDecodeChains][kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      acc[0][v] = SetI(-d.zero * sum);
#pragma GCC unroll 4
      for (int u = 1; u < kDecodeChains; ++u) acc[u][v] = SetI(0);
    }
    do {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const VI code[8] = {source.template Step<0>(v), source.template Step<1>(v),
                            source.template Step<2>(v), source.template Step<3>(v),
                            source.template Step<4>(v), source.template Step<5>(v),
                            source.template Step<6>(v), source.template Step<7>(v)};
#pragma GCC unroll 8
        for (int t = 0; t < 8; ++t) {
          VI& to = acc[t % kDecodeChains][v];
          to = Dot<kSignedW>(to, code[t], BroadcastI(a + 4 * t));
        }
      }
      source.Next();
      a += 32;
    } while (--units != 0);
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const VI total = AddI(AddI(acc[0][v], acc[1][v]), AddI(acc[2][v], acc[3][v]));
      span[v] = FmaF(ToF(total), ScaleAt(d, seg.weight_group, v), span[v]);
    }
    if (d.has_min) {
      const VF s = SetF(static_cast<float>(sum));
      for (int v = 0; v < kVecs; ++v) {
        span[v] = FmaF(FactorAt(d, d.mins, seg.weight_group, v), s, span[v]);
      }
    }
    if constexpr (kGrouped) EndSegment(d, g, c, span);
  }
  for (int v = 0; v < kVecs; ++v) StoreF(d.c + v * kLanes, kGrouped ? c[v] : span[v]);
}

// The same where each half of a unit has its own scale (groups of 16 columns).
template <int BITS, bool kGrouped>
void DecodeHalvesKernel(const TileDecode& d) {
  constexpr bool kSignedW = BITS == 8 && kSignedPanel8;
  DenseSource<BITS> source(d);
  VF c[kVecs], span[kVecs];
  StartSums<kGrouped>(d, c, span);
  for (int64_t g = 0; g < d.segment_count; g += 2) {
    const int32_t first = d.runs[d.segments[g].first_run].step;
    const int32_t* sums = d.sums + static_cast<uint32_t>(first) / 4;
    const int32_t sum[2] = {sums[1] - sums[0], sums[2] - sums[1]};
    const int8_t* a = d.a + int64_t{4} * first;
    VI acc[4][kVecs];  // two of each half
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      acc[0][v] = SetI(-d.zero * sum[0]);
      acc[2][v] = SetI(-d.zero * sum[1]);
      acc[1][v] = acc[3][v] = SetI(0);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const VI code[8] = {source.template Step<0>(v), source.template Step<1>(v),
                          source.template Step<2>(v), source.template Step<3>(v),
                          source.template Step<4>(v), source.template Step<5>(v),
                          source.template Step<6>(v), source.template Step<7>(v)};
#pragma GCC unroll 8
      for (int t = 0; t < 8; ++t) {
        VI& to = acc[t / 4 * 2 + t % 2][v];
        to = Dot<kSignedW>(to, code[t], BroadcastI(a + 4 * t));
      }
    }
    source.Next();
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const int32_t group = d.segments[g + h].weight_group;
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const VI total = AddI(acc[2 * h][v], acc[2 * h + 1][v]);
        span[v] = FmaF(ToF(total), ScaleAt(d, group, v), span[v]);
      }
      if (d.has_min) {
        const VF s = SetF(static_cast<float>(sum[h]));
        for (int v = 0; v < kVecs; ++v) {
          span[v] = FmaF(FactorAt(d, d.mins, group, v), s, span[v]);
        }
      }
      if constexpr (kGrouped) EndSegment(d, g + h, c, span);
    }
  }
  for (int v = 0; v < kVecs; ++v) StoreF(d.c + v * kLanes, kGrouped ? c[v] : span[v]);
}

template <int BITS>
void DecodeDense(const TileDecode& d) {
  if (d.half_units) {
    return d.grouped ? DecodeHalvesKernel<BITS, true>(d) : DecodeHalvesKernel<BITS, false>(d);
  }
  if (d.grouped) return DecodeDenseKernel<BITS, true>(d);
  DecodeDenseKernel<BITS, false>(d);
}

void DecodeTileFn(const TileDecode& d) {
  switch (d.bits) {
    case 2:
      return DecodeDense<2>(d);
    case 3:
      return DecodeDense<3>(d);
    case 4:
      return DecodeDense<4>(d);
    case 5:
      return DecodeDense<5>(d);
    case 6:
      return DecodeDense<6>(d);
    default:
      return DecodeDense<8>(d);
  }
}

// The same from an unstructured tile.
template <int BITS, bool kGrouped>
void DecodeSparseKernel(const TileDecode& d) {
  constexpr bool kSignedW = BITS == 8 && kSignedPanel8;
  constexpr int kLow = BITS == 3 ? 2 : BITS == 5 || BITS == 6 ? 4 : BITS;
  constexpr int kHigh = BITS - kLow;
  constexpr int kLowStreams = 8 / kLow, kHighStreams = kHigh == 0 ? 1 : 8 / kHigh;
  const uint8_t *low[kLowStreams], *high[kHighStreams];
  for (const uint8_t*& p : low) p = d.values[0];
  for (const uint8_t*& p : high) p = d.values[1];
  const uint8_t* masks = d.masks;
  const VI flip = SetB(SparseFlip(BITS));
  VF c[kVecs], span[kVecs];
  StartSums<kGrouped>(d, c, span);
  for (int64_t g = 0; g < d.segment_count; ++g) {
    const Segment seg = d.segments[g];
    const Run run = d.runs[seg.first_run];
    const auto begin = static_cast<uint32_t>(run.step) / 4;
    int64_t units = (static_cast<uint32_t>(run.steps) + 7) / 8;
    const int32_t sum = d.sums[begin + 2 * units] - d.sums[begin];
    const int8_t* a = d.a + int64_t{4} * run.step;
    VI acc0[kVecs], acc1[kVecs], acc2[kVecs], acc3[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      acc0[v] = SetI(-d.zero * sum);
      acc1[v] = acc2[v] = acc3[v] = SetI(0);
    }
    do {
      const auto step = [&](auto constant, VI(&to)[kVecs]) EW_LAMBDA_INLINE {
        constexpr int T = decltype(constant)::value;
        uint64_t mask;
        __builtin_memcpy(&mask, masks + 8 * T, 8);
        const uint8_t*& at = low[T % kLowStreams];
        constexpr int kLowShift = T % kLowStreams * kLow;
#ifdef EW_VBMI2
        if constexpr (kHigh == 0) {
          const VI code = ExpandCodes<kLowShift, (1 << kLow) - 1>(mask, at, flip);
          at += __builtin_popcountll(mask);
          to[0] = Dot<false>(to[0], code, BroadcastI(a + 4 * T));
          return;
        }
#endif
        ExpandedStep e = ExpandStep<kLowShift, (1 << kLow) - 1, 0>(mask, at);
        const auto n = static_cast<int64_t>(__builtin_popcountll(mask));
        at += n;
        if constexpr (kHigh != 0) {
          const uint8_t*& at2 = high[T % kHighStreams];
          constexpr int kHighShift = T % kHighStreams * kHigh;
          e = OrStep(e, ExpandStep<kHighShift, (1 << kHigh) - 1, kLow>(mask, at2));
          at2 += n;
        }
        const VI av = BroadcastI(a + 4 * T);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          to[v] = Dot<kSignedW>(to[v], XorI(StepVector(e, v), flip), av);
        }
      };
      step(Constant<0>{}, acc0);
      step(Constant<1>{}, acc1);
      step(Constant<2>{}, acc2);
      step(Constant<3>{}, acc3);
      step(Constant<4>{}, acc0);
      step(Constant<5>{}, acc1);
      step(Constant<6>{}, acc2);
      step(Constant<7>{}, acc3);
      __builtin_prefetch(masks + kDecodeAhead);
#pragma GCC unroll 8
      for (int l = 0; l < (BITS + 1) / 2; ++l) {
        __builtin_prefetch(low[0] + kDecodeAhead + 64 * l);
      }
      masks += 64;
      a += 32;
    } while (--units != 0);
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const VI total = AddI(AddI(acc0[v], acc1[v]), AddI(acc2[v], acc3[v]));
      span[v] = FmaF(ToF(total), ScaleAt(d, seg.weight_group, v), span[v]);
    }
    if constexpr (kGrouped) EndSegment(d, g, c, span);
  }
  for (int v = 0; v < kVecs; ++v) StoreF(d.c + v * kLanes, kGrouped ? c[v] : span[v]);
}

template <int BITS>
void DecodeSparse(const TileDecode& d) {
  if (d.grouped) return DecodeSparseKernel<BITS, true>(d);
  DecodeSparseKernel<BITS, false>(d);
}

void DecodeSparseFn(const TileDecode& d) {
  switch (d.bits) {
    case 2:
      return DecodeSparse<2>(d);
    case 3:
      return DecodeSparse<3>(d);
    case 4:
      return DecodeSparse<4>(d);
    case 5:
      return DecodeSparse<5>(d);
    case 6:
      return DecodeSparse<6>(d);
    default:
      return DecodeSparse<8>(d);
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
