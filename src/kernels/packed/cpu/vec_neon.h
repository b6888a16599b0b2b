// Vectors of 128 bits, four to a tile. EW_DOT: sdot.
#pragma once

#include <arm_neon.h>

#include "kernels/packed/cpu/common.h"

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

using VI = int32x4_t;
using VF = float32x4_t;
constexpr int kVecs = 4;
constexpr int kVecBytes = 16;
constexpr int kPanelTiles = 1;
constexpr bool kRowByRow = false;
constexpr int kKeepTiles = 0;
constexpr bool kSignedPanel8 = true;

#include "kernels/packed/cpu/constants.inl.h"

EW_INLINE uint8x16_t AsBytes(VI v) { return vreinterpretq_u8_s32(v); }
EW_INLINE VI FromBytes(uint8x16_t v) { return vreinterpretq_s32_u8(v); }

EW_INLINE VI LoadI(const void* p) { return FromBytes(vld1q_u8(static_cast<const uint8_t*>(p))); }
EW_INLINE void StoreI(void* p, VI v) { vst1q_u8(static_cast<uint8_t*>(p), AsBytes(v)); }
EW_INLINE VI SetI(int x) { return vdupq_n_s32(x); }
EW_INLINE VI SetB(int x) { return FromBytes(vdupq_n_u8(static_cast<uint8_t>(x))); }
EW_INLINE VI BroadcastI(const void* p) {
  int x;
  __builtin_memcpy(&x, p, 4);
  return vdupq_n_s32(x);
}
EW_INLINE VI AddI(VI a, VI b) { return vaddq_s32(a, b); }
EW_INLINE VI SubI(VI a, VI b) { return vsubq_s32(a, b); }
EW_INLINE VI MulI(VI a, VI b) { return vmulq_s32(a, b); }
EW_INLINE VI MaxI(VI a, VI b) { return vmaxq_s32(a, b); }
EW_INLINE int32_t ReduceMaxI(VI a) { return vmaxvq_s32(a); }
EW_INLINE VI ClampI(VI a, int lo, int hi) { return vmaxq_s32(vminq_s32(a, SetI(hi)), SetI(lo)); }
EW_INLINE VI AndI(VI a, VI b) { return vandq_s32(a, b); }
EW_INLINE VI OrI(VI a, VI b) { return vorrq_s32(a, b); }
EW_INLINE VI XorI(VI a, VI b) { return veorq_s32(a, b); }
template <int N>
EW_INLINE VI ShrI(VI a) {
  if constexpr (N == 0) {
    return a;
  } else {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), N));
  }
}
template <int N>
EW_INLINE VI ShlI(VI a) {
  return vshlq_n_s32(a, N);
}
EW_INLINE VI ShrVarI(VI a, int n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), SetI(-n)));
}
// Negative counts shift right: values of 8 bits become zero from -8 on, as the callers need.
EW_INLINE VI ShlLanesI(VI a, VI n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), n));
}

// Codes have at most 6 bits, or are signed bytes: either way they are int8.
template <bool kSignedW>
EW_INLINE VI Dot(VI acc, VI w, VI a) {
  const int8x16_t ws = vreinterpretq_s8_s32(w), as = vreinterpretq_s8_s32(a);
#ifdef EW_DOT
  return vdotq_s32(acc, ws, as);
#else
  const int16x8_t lo = vmull_s8(vget_low_s8(ws), vget_low_s8(as));
  const int16x8_t hi = vmull_high_s8(ws, as);
  return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
#endif
}

// Byte i: one of the 16 at p, which `index` names (below 16).
EW_INLINE VI SelectBytes(const void* p, VI index) {
  return FromBytes(vqtbl1q_u8(vld1q_u8(static_cast<const uint8_t*>(p)), AsBytes(index)));
}

EW_INLINE VF LoadF(const float* p) { return vld1q_f32(p); }
EW_INLINE void StoreF(float* p, VF v) { vst1q_f32(p, v); }
EW_INLINE VF SetF(float x) { return vdupq_n_f32(x); }
EW_INLINE VF AddF(VF a, VF b) { return vaddq_f32(a, b); }
EW_INLINE VF MulF(VF a, VF b) { return vmulq_f32(a, b); }
EW_INLINE VF FmaF(VF a, VF b, VF c) { return vfmaq_f32(c, a, b); }
EW_INLINE VF FloorF(VF a) { return vrndmq_f32(a); }
EW_INLINE VF ToF(VI a) { return vcvtq_f32_s32(a); }
EW_INLINE VI RoundI(VF a) { return vcvtnq_s32_f32(a); }
EW_INLINE VI BitsOf(VF a) { return vreinterpretq_s32_f32(a); }
EW_INLINE VF AsF(VI a) { return vreinterpretq_f32_s32(a); }
EW_INLINE void StoreAsInt8(int8_t* p, VI v) {
  const int16x4_t words = vmovn_s32(v);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
  __builtin_memcpy(p, &four, 4);
}
EW_INLINE VI LoadInt8(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
  return vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
}
EW_INLINE VF LoadHalf(const uint8_t* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }

EW_INLINE void Transpose4x4(const uint8_t* in, uint8_t* out) {
  static constexpr uint8_t kOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  vst1q_u8(out, vqtbl1q_u8(vld1q_u8(in), vld1q_u8(kOrder)));
}
EW_INLINE void SumsOf16(const int8_t* q, int32_t* sums) {
  for (int i = 0; i < 4; ++i) sums[i] = vaddlvq_s8(vld1q_s8(q + 16 * i));
}

struct ExpandedStep {
  VI v[4];
};
EW_INLINE VI StepVector(const ExpandedStep& a, int i) { return a.v[i]; }
EW_INLINE ExpandedStep OrStep(ExpandedStep a, ExpandedStep b) {
  for (int i = 0; i < 4; ++i) a.v[i] = OrI(a.v[i], b.v[i]);
  return a;
}
EW_INLINE void StoreStep(uint8_t* out, ExpandedStep a, VI flip) {
  for (int i = 0; i < 4; ++i) StoreI(out + 16 * i, XorI(a.v[i], flip));
}

template <int SHIFT, int MASK, int UP>
EW_INLINE ExpandedStep ExpandStep(uint64_t mask, const uint8_t* p) {
  ExpandedStep e;
  for (int i = 0; i < 4; ++i) {
    const auto lo = static_cast<uint32_t>(mask >> (16 * i)) & 0xff;
    const auto hi = static_cast<uint32_t>(mask >> (16 * i + 8)) & 0xff;
    const uint8x8_t first = vtbl1_u8(vld1_u8(p), vld1_u8(kExpand.at[lo]));
    p += __builtin_popcount(lo);
    const uint8x8_t second = vtbl1_u8(vld1_u8(p), vld1_u8(kExpand.at[hi]));
    p += __builtin_popcount(hi);
    VI v = FromBytes(vcombine_u8(first, second));
    if constexpr (MASK != 0xff) v = ShlI<UP>(AndI(ShrI<SHIFT>(v), SetB(MASK)));
    e.v[i] = v;
  }
  return e;
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
