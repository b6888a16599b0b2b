// 4 floats in an Advanced SIMD register. For use inside one translation unit only (see inline.h).
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/cpu/inline.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

using Vec = float32x4_t;
constexpr int kLanes = 4;
// Register tile of the matrix product: kMr x (kNv * kLanes); 24 of 32 registers accumulate.
constexpr int kMr = 12;
constexpr int kNv = 2;

EW_INLINE Vec Load(const float* p) { return vld1q_f32(p); }
EW_INLINE void Store(float* p, Vec v) { vst1q_f32(p, v); }
// The first n lanes, 0 <= n <= kLanes; the others are zero.
EW_INLINE Vec LoadN(const float* p, int64_t n) {
  if (n == kLanes) return Load(p);
  Vec v = vdupq_n_f32(0);
  if (n > 0) v = vld1q_lane_f32(p, v, 0);
  if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
  return v;
}
EW_INLINE void StoreN(float* p, Vec v, int64_t n) {
  if (n == kLanes) return Store(p, v);
  if (n > 0) vst1q_lane_f32(p, v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}
EW_INLINE Vec Set1(float f) { return vdupq_n_f32(f); }
EW_INLINE Vec Iota() { return Vec{0, 1, 2, 3}; }
EW_INLINE Vec Fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
// NaN in either operand is kept.
EW_INLINE Vec Min(Vec a, Vec b) { return vminq_f32(a, b); }
EW_INLINE Vec Max(Vec a, Vec b) { return vmaxq_f32(a, b); }
EW_INLINE Vec Sqrt(Vec a) { return vsqrtq_f32(a); }
EW_INLINE Vec Round(Vec a) { return vrndnq_f32(a); }
// a < b ? x : y.
EW_INLINE Vec SelectLess(Vec a, Vec b, Vec x, Vec y) { return vbslq_f32(vcltq_f32(a, b), x, y); }
EW_INLINE bool AnyLess(Vec a, Vec b) { return vmaxvq_u32(vcltq_f32(a, b)) != 0; }
// 2^n for integral n in [-126, 127].
EW_INLINE Vec Pow2(Vec n) {
  const int32x4_t i = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
  return vreinterpretq_f32_s32(vshlq_n_s32(i, 23));
}
// y 2^n for integral n in [-126, 127].
EW_INLINE Vec TimesPow2(Vec y, Vec n) { return y * Pow2(n); }
EW_INLINE float ReduceAdd(Vec v) { return vaddvq_f32(v); }
EW_INLINE float ReduceMax(Vec v) { return vmaxvq_f32(v); }
EW_INLINE Vec LoadF16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
EW_INLINE Vec LoadBF16(const uint16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

// r[i][j] <-> r[j][i] of a kLanes x kLanes block.
EW_INLINE void Transpose(Vec (&r)[kLanes]) {
  const float32x4x2_t a = vtrnq_f32(r[0], r[1]);
  const float32x4x2_t b = vtrnq_f32(r[2], r[3]);
  r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
