// 16 floats in a zmm register. For use inside one translation unit only (see inline.h).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/inline.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

using Vec = __m512;
constexpr int kLanes = 16;
// Register tile of the matrix product: kMr x (kNv * kLanes); 28 of 32 registers accumulate.
constexpr int kMr = 14;
constexpr int kNv = 2;

EW_INLINE Vec Load(const float* p) { return _mm512_loadu_ps(p); }
EW_INLINE void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
EW_INLINE __mmask16 FirstN(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
// The first n lanes, 0 <= n <= kLanes; the others are zero.
EW_INLINE Vec LoadN(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(FirstN(n), p); }
EW_INLINE void StoreN(float* p, Vec v, int64_t n) { _mm512_mask_storeu_ps(p, FirstN(n), v); }
EW_INLINE Vec Set1(float f) { return _mm512_set1_ps(f); }
EW_INLINE Vec Iota() {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
EW_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// NaN in the second operand is kept (Min and Max).
EW_INLINE Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
EW_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
EW_INLINE Vec Sqrt(Vec a) { return _mm512_sqrt_ps(a); }
EW_INLINE Vec Round(Vec a) { return _mm512_roundscale_ps(a, 8); }
// a < b ? x : y.
EW_INLINE Vec SelectLess(Vec a, Vec b, Vec x, Vec y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
EW_INLINE bool AnyLess(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ) != 0; }
// 2^n for integral n in [-126, 127].
EW_INLINE Vec Pow2(Vec n) {
  const __m512i i = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(i, 23));
}
// y 2^n for integral n in [-126, 127].
EW_INLINE Vec TimesPow2(Vec y, Vec n) { return _mm512_scalef_ps(y, n); }
EW_INLINE float ReduceAdd(Vec v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
EW_INLINE float ReduceMax(Vec v) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
EW_INLINE Vec LoadF16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
EW_INLINE Vec LoadBF16(const uint16_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

// r[i][j] <-> r[j][i] of a kLanes x kLanes block.
EW_INLINE void Transpose(Vec (&r)[kLanes]) {
  Vec t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
    const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Vec a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    const Vec b = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    const Vec c = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    const Vec d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    r[i] = _mm512_shuffle_f32x4(a, b, 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(c, d, 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
