// 8 floats in a ymm register. For use inside one translation unit only (see inline.h).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/inline.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

using Vec = __m256;
constexpr int kLanes = 8;
// Register tile of the matrix product: kMr x (kNv * kLanes); 12 of 16 registers accumulate.
constexpr int kMr = 6;
constexpr int kNv = 2;

EW_INLINE Vec Load(const float* p) { return _mm256_loadu_ps(p); }
EW_INLINE void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
EW_INLINE __m256i FirstN(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first n lanes, 0 <= n <= kLanes; the others are zero.
EW_INLINE Vec LoadN(const float* p, int64_t n) { return _mm256_maskload_ps(p, FirstN(n)); }
EW_INLINE void StoreN(float* p, Vec v, int64_t n) { _mm256_maskstore_ps(p, FirstN(n), v); }
EW_INLINE Vec Set1(float f) { return _mm256_set1_ps(f); }
EW_INLINE Vec Iota() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
EW_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
// NaN in the second operand is kept (Min and Max).
EW_INLINE Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
EW_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
EW_INLINE Vec Sqrt(Vec a) { return _mm256_sqrt_ps(a); }
EW_INLINE Vec Round(Vec a) { return _mm256_round_ps(a, 8); }
// a < b ? x : y.
EW_INLINE Vec SelectLess(Vec a, Vec b, Vec x, Vec y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
EW_INLINE bool AnyLess(Vec a, Vec b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)) != 0;
}
// 2^n for integral n in [-126, 127].
EW_INLINE Vec Pow2(Vec n) {
  const __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(i, 23));
}
// y 2^n for integral n in [-126, 127].
EW_INLINE Vec TimesPow2(Vec y, Vec n) { return y * Pow2(n); }
EW_INLINE float ReduceAdd(Vec v) {
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
EW_INLINE float ReduceMax(Vec v) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
EW_INLINE Vec LoadF16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
EW_INLINE Vec LoadBF16(const uint16_t* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

// r[i][j] <-> r[j][i] of a kLanes x kLanes block.
EW_INLINE void Transpose(Vec (&r)[kLanes]) {
  Vec t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Vec lo = r[i], hi = r[i + 4];
    r[i] = _mm256_permute2f128_ps(lo, hi, 0x20);
    r[i + 4] = _mm256_permute2f128_ps(lo, hi, 0x31);
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
