// One row times an N:M tile without expanding it: every stored value picks its activation by its
// position, so that arithmetic and bytes both are N / M of the dense form's. Part of body.inl.h.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

// Four steps of a compressed unit, the first half of it or the second.
template <int BITS, int POSITION_BITS, int FIRST>
EW_INLINE void NmHalf(const TileDecode& d, const uint8_t* values, const uint8_t* positions,
                      const int8_t* a, int64_t step, VI (&acc)[4][kVecs], VI (&picked)[4][kVecs]) {
  constexpr bool kSignedW = BITS == 8 && kSignedPanel8;
  const VI flip = SetB(SparseFlip(BITS)), zero = SetB(kSignedW ? 0 : 1 << (BITS - 1));
  const auto k = static_cast<int64_t>(d.block_steps);
  Unroll<4>([&](auto constant) EW_LAMBDA_INLINE {
    constexpr int T = decltype(constant)::value;
    const int64_t block = (step + T) / k;
    const VI base = SetI(d.bases[step + T - block * k]);
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const VI code = XorI(CodeAt<BITS, FIRST + T>(values + v * kVecBytes), flip);
      const VI at = AddI(CodeAt<POSITION_BITS, FIRST + T>(positions + v * kVecBytes), base);
      const VI act = SelectBytes(a + 16 * block, at);
      acc[T][v] = Dot<kSignedW>(acc[T][v], code, act);
      // Which activations count as `zero` differs from row to row: no prefix sum has them.
      if constexpr (!kSignedW) picked[T][v] = Dot<false>(picked[T][v], zero, act);
    }
  });
}

template <int BITS, int POSITION_BITS, bool kGrouped>
void DecodeNmKernel(const TileDecode& d) {
  const uint8_t *values = d.values[0], *positions = d.positions;
  VF c[kVecs], span[kVecs];
  StartSums<kGrouped>(d, c, span);
  int64_t half = 0;
  for (int64_t g = 0; g < d.segment_count; ++g) {
    const Segment seg = d.segments[g];
    const Run run = d.runs[seg.first_run];
    // Whole halves. The last segment may end beyond the matrix, where nothing is stored.
    int64_t halves = (run.steps / 4 * d.block_steps + 3) / 4;
    if (halves > d.stored_halves - half) halves = d.stored_halves - half;
    const int8_t* a = d.a + int64_t{4} * run.step;
    VI acc[4][kVecs], picked[4][kVecs];
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[t][v] = picked[t][v] = SetI(0);
    }
    for (int64_t h = 0; h < halves; ++h, ++half) {
      if (half % 2 == 0) {
        NmHalf<BITS, POSITION_BITS, 0>(d, values, positions, a, 4 * h, acc, picked);
        continue;
      }
      NmHalf<BITS, POSITION_BITS, 4>(d, values, positions, a, 4 * h, acc, picked);
      values += 64 * BITS;
      positions += 64 * POSITION_BITS;
#pragma GCC unroll 8
      for (int l = 0; l < BITS; ++l) __builtin_prefetch(values + kDecodeAhead + 64 * l);
#pragma GCC unroll 4
      for (int l = 0; l < POSITION_BITS; ++l) __builtin_prefetch(positions + kDecodeAhead + 64 * l);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const VI sum = AddI(AddI(acc[0][v], acc[1][v]), AddI(acc[2][v], acc[3][v]));
      const VI zeros = AddI(AddI(picked[0][v], picked[1][v]), AddI(picked[2][v], picked[3][v]));
      span[v] = FmaF(ToF(SubI(sum, zeros)), ScaleAt(d, seg.weight_group, v), span[v]);
    }
    if constexpr (kGrouped) EndSegment(d, g, c, span);
  }
  for (int v = 0; v < kVecs; ++v) StoreF(d.c + v * kLanes, kGrouped ? c[v] : span[v]);
}

template <int BITS>
void DecodeNm(const TileDecode& d) {
  switch (d.position_bits) {
    case 2:
      return d.grouped ? DecodeNmKernel<BITS, 2, true>(d) : DecodeNmKernel<BITS, 2, false>(d);
    case 3:
      return d.grouped ? DecodeNmKernel<BITS, 3, true>(d) : DecodeNmKernel<BITS, 3, false>(d);
    default:
      return d.grouped ? DecodeNmKernel<BITS, 4, true>(d) : DecodeNmKernel<BITS, 4, false>(d);
  }
}

void DecodeNmFn(const TileDecode& d) {
  switch (d.bits) {
    case 2:
      return DecodeNm<2>(d);
    case 3:
      return DecodeNm<3>(d);
    case 4:
      return DecodeNm<4>(d);
    case 5:
      return DecodeNm<5>(d);
    case 6:
      return DecodeNm<6>(d);
    default:
      return DecodeNm<8>(d);
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
