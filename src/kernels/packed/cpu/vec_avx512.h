// Vectors of 512 bits. EW_VNNI: integer dot products; EW_VBMI2: byte expand.
#pragma once

#include <immintrin.h>

#include "kernels/packed/cpu/common.h"

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

using VI = __m512i;
using VF = __m512;
constexpr int kVecs = 1;
constexpr int kVecBytes = 64;
constexpr int kPanelTiles = 4;
constexpr bool kRowByRow = false;
constexpr int kKeepTiles = 2;
#ifdef EW_VNNI
constexpr bool kSignedPanel8 = false;
#else
constexpr bool kSignedPanel8 = true;
#endif

#include "kernels/packed/cpu/vec_x86.inl.h"

EW_INLINE VI LoadI(const void* p) { return _mm512_loadu_si512(p); }
EW_INLINE void StoreI(void* p, VI v) { _mm512_storeu_si512(p, v); }
EW_INLINE VI SetI(int x) { return _mm512_set1_epi32(x); }
EW_INLINE VI SetB(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
EW_INLINE VI BroadcastI(const void* p) {
  int x;
  __builtin_memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}
EW_INLINE VI AddI(VI a, VI b) { return _mm512_add_epi32(a, b); }
EW_INLINE VI SubI(VI a, VI b) { return _mm512_sub_epi32(a, b); }
EW_INLINE VI MulI(VI a, VI b) { return _mm512_mullo_epi32(a, b); }
EW_INLINE VI MaxI(VI a, VI b) { return _mm512_max_epi32(a, b); }
EW_INLINE int32_t ReduceMaxI(VI a) {
  const __m256i b = _mm256_max_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  return ReduceMax128(_mm_max_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
}
EW_INLINE VI ClampI(VI a, int lo, int hi) {
  return _mm512_max_epi32(_mm512_min_epi32(a, SetI(hi)), SetI(lo));
}
EW_INLINE VI AndI(VI a, VI b) { return _mm512_and_si512(a, b); }
EW_INLINE VI OrI(VI a, VI b) { return _mm512_or_si512(a, b); }
EW_INLINE VI XorI(VI a, VI b) { return _mm512_xor_si512(a, b); }
template <int N>
EW_INLINE VI ShrI(VI a) {
  return N == 0 ? a : _mm512_srli_epi32(a, N);
}
template <int N>
EW_INLINE VI ShlI(VI a) {
  return N == 0 ? a : _mm512_slli_epi32(a, N);
}
EW_INLINE VI ShrVarI(VI a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
EW_INLINE VI ShlLanesI(VI a, VI n) { return _mm512_sllv_epi32(a, n); }

template <bool kSignedW>
EW_INLINE VI Dot(VI acc, VI w, VI a) {
  // Intrinsics would change the vector's element type, and GCC then keeps every sum of a loop
  // twice, once per type: half of them on the stack.
#ifdef EW_VNNI
  static_assert(!kSignedW);
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
  return acc;
#else
  // Pairs stay within 16 bits: unsigned codes have at most 6 bits, and of signed bytes the
  // magnitude (<= 128) meets an activation (<= 127) that takes the sign.
  if constexpr (kSignedW) {
    a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
    w = _mm512_abs_epi8(w);
  }
  const VI sum = _mm512_madd_epi16(_mm512_maddubs_epi16(w, a), _mm512_set1_epi16(1));
  __asm__("vpaddd %1, %0, %0" : "+v"(acc) : "v"(sum));
  return acc;
#endif
}

// Byte i of every 16 bytes: one of the 16 at p, which `index` names (below 16).
EW_INLINE VI SelectBytes(const void* p, VI index) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(Load128(p)), index);
}

EW_INLINE VF LoadF(const float* p) { return _mm512_loadu_ps(p); }
EW_INLINE void StoreF(float* p, VF v) { _mm512_storeu_ps(p, v); }
EW_INLINE VF SetF(float x) { return _mm512_set1_ps(x); }
EW_INLINE VF AddF(VF a, VF b) { return _mm512_add_ps(a, b); }
EW_INLINE VF MulF(VF a, VF b) { return _mm512_mul_ps(a, b); }
EW_INLINE VF FmaF(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
EW_INLINE VF FloorF(VF a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
EW_INLINE VF ToF(VI a) { return _mm512_cvtepi32_ps(a); }
EW_INLINE VI RoundI(VF a) { return _mm512_cvtps_epi32(a); }
EW_INLINE VI BitsOf(VF a) { return _mm512_castps_si512(a); }
EW_INLINE VF AsF(VI a) { return _mm512_castsi512_ps(a); }
EW_INLINE void StoreAsInt8(int8_t* p, VI v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
EW_INLINE VI LoadInt8(const int8_t* p) { return _mm512_cvtepi8_epi32(Load128(p)); }
EW_INLINE VF LoadHalf(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

#ifdef EW_VBMI2
// ExpandStep of a code's only plane and the flip of its values in one: what is pruned becomes
// `flip` (zero's code), since the expansion merges into it.
template <int SHIFT, int MASK>
EW_INLINE VI ExpandCodes(uint64_t mask, const uint8_t* p, VI flip) {
  const VI v = ShrI<SHIFT>(LoadI(p));
  return _mm512_mask_expand_epi8(flip, mask, _mm512_ternarylogic_epi32(v, SetB(MASK), flip, 0x6a));
}
#endif

struct ExpandedStep {
  VI v;
};
EW_INLINE VI StepVector(const ExpandedStep& a, int) { return a.v; }
EW_INLINE ExpandedStep OrStep(ExpandedStep a, ExpandedStep b) { return {OrI(a.v, b.v)}; }
EW_INLINE void StoreStep(uint8_t* out, ExpandedStep a, VI flip) { StoreI(out, XorI(a.v, flip)); }

template <int SHIFT, int MASK, int UP>
EW_INLINE ExpandedStep ExpandStep(uint64_t mask, const uint8_t* p) {
#ifdef EW_VBMI2
  VI v = LoadI(p);
  if constexpr (MASK != 0xff) v = AndI(ShrI<SHIFT>(v), SetB(MASK));
  v = ShlI<UP>(v);
  // Zen 5 makes the expansion wait for what its destination held before, zero-masked or not;
  // clearing it first costs nothing and triples the speed.
  VI out;
  __asm__("vpxord %0, %0, %0\n\tvpexpandb %1, %0%{%2%}%{z%}" : "=&v"(out) : "v"(v), "Yk"(mask));
  v = out;
#else
  VI v = _mm512_setzero_si512();
  __m128i piece[4];
  for (int i = 0; i < 4; ++i) {
    const auto m = static_cast<uint32_t>(mask >> (16 * i)) & 0xffff;
    piece[i] = Expand16(m, p);
    p += __builtin_popcount(m);
  }
  v = _mm512_inserti32x4(_mm512_castsi128_si512(piece[0]), piece[1], 1);
  v = _mm512_inserti32x4(v, piece[2], 2);
  v = _mm512_inserti32x4(v, piece[3], 3);
  if constexpr (MASK != 0xff) v = ShlI<UP>(AndI(ShrI<SHIFT>(v), SetB(MASK)));
#endif
  return {v};
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
