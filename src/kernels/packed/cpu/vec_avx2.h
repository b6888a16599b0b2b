// Vectors of 256 bits, two to a tile. EW_VNNI: AVX-VNNI dot products.
#pragma once

#include <immintrin.h>

#include "kernels/packed/cpu/common.h"

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

using VI = __m256i;
using VF = __m256;
constexpr int kVecs = 2;
constexpr int kVecBytes = 32;
constexpr int kPanelTiles = 1;
constexpr bool kRowByRow = false;
constexpr int kKeepTiles = 0;
#ifdef EW_VNNI
constexpr bool kSignedPanel8 = false;
#else
constexpr bool kSignedPanel8 = true;
#endif

#include "kernels/packed/cpu/vec_x86.inl.h"

EW_INLINE VI LoadI(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
EW_INLINE void StoreI(void* p, VI v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
EW_INLINE VI SetI(int x) { return _mm256_set1_epi32(x); }
EW_INLINE VI SetB(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
EW_INLINE VI BroadcastI(const void* p) {
  int x;
  __builtin_memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}
EW_INLINE VI AddI(VI a, VI b) { return _mm256_add_epi32(a, b); }
EW_INLINE VI SubI(VI a, VI b) { return _mm256_sub_epi32(a, b); }
EW_INLINE VI MulI(VI a, VI b) { return _mm256_mullo_epi32(a, b); }
EW_INLINE VI MaxI(VI a, VI b) { return _mm256_max_epi32(a, b); }
EW_INLINE int32_t ReduceMaxI(VI a) {
  return ReduceMax128(_mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}
EW_INLINE VI ClampI(VI a, int lo, int hi) {
  return _mm256_max_epi32(_mm256_min_epi32(a, SetI(hi)), SetI(lo));
}
EW_INLINE VI AndI(VI a, VI b) { return _mm256_and_si256(a, b); }
EW_INLINE VI OrI(VI a, VI b) { return _mm256_or_si256(a, b); }
EW_INLINE VI XorI(VI a, VI b) { return _mm256_xor_si256(a, b); }
template <int N>
EW_INLINE VI ShrI(VI a) {
  return N == 0 ? a : _mm256_srli_epi32(a, N);
}
template <int N>
EW_INLINE VI ShlI(VI a) {
  return N == 0 ? a : _mm256_slli_epi32(a, N);
}
EW_INLINE VI ShrVarI(VI a, int n) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)); }
EW_INLINE VI ShlLanesI(VI a, VI n) { return _mm256_sllv_epi32(a, n); }

template <bool kSignedW>
EW_INLINE VI Dot(VI acc, VI w, VI a) {
  // Intrinsics would change the vector's element type, and GCC then keeps every sum of a loop
  // twice, once per type: half of them on the stack.
#ifdef EW_VNNI
  static_assert(!kSignedW);
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(w), "x"(a));
  return acc;
#else
  // Pairs stay within 16 bits: unsigned codes have at most 6 bits, and of signed bytes the
  // magnitude (<= 128) meets an activation (<= 127) that takes the sign.
  if constexpr (kSignedW) {
    a = _mm256_sign_epi8(a, w);
    w = _mm256_abs_epi8(w);
  }
  const VI sum = _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1));
  __asm__("vpaddd %1, %0, %0" : "+x"(acc) : "x"(sum));
  return acc;
#endif
}

// Byte i of every 16 bytes: one of the 16 at p, which `index` names (below 16).
EW_INLINE VI SelectBytes(const void* p, VI index) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(Load128(p)), index);
}

EW_INLINE VF LoadF(const float* p) { return _mm256_loadu_ps(p); }
EW_INLINE void StoreF(float* p, VF v) { _mm256_storeu_ps(p, v); }
EW_INLINE VF SetF(float x) { return _mm256_set1_ps(x); }
EW_INLINE VF AddF(VF a, VF b) { return _mm256_add_ps(a, b); }
EW_INLINE VF MulF(VF a, VF b) { return _mm256_mul_ps(a, b); }
EW_INLINE VF FmaF(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
EW_INLINE VF FloorF(VF a) { return _mm256_floor_ps(a); }
EW_INLINE VF ToF(VI a) { return _mm256_cvtepi32_ps(a); }
EW_INLINE VI RoundI(VF a) { return _mm256_cvtps_epi32(a); }
EW_INLINE VI BitsOf(VF a) { return _mm256_castps_si256(a); }
EW_INLINE VF AsF(VI a) { return _mm256_castsi256_ps(a); }
EW_INLINE void StoreAsInt8(int8_t* p, VI v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
EW_INLINE VI LoadInt8(const int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
EW_INLINE VF LoadHalf(const uint8_t* p) { return _mm256_cvtph_ps(Load128(p)); }

struct ExpandedStep {
  VI v[2];
};
EW_INLINE VI StepVector(const ExpandedStep& a, int i) { return a.v[i]; }
EW_INLINE ExpandedStep OrStep(ExpandedStep a, ExpandedStep b) {
  return {{OrI(a.v[0], b.v[0]), OrI(a.v[1], b.v[1])}};
}
EW_INLINE void StoreStep(uint8_t* out, ExpandedStep a, VI flip) {
  StoreI(out, XorI(a.v[0], flip));
  StoreI(out + 32, XorI(a.v[1], flip));
}

template <int SHIFT, int MASK, int UP>
EW_INLINE ExpandedStep ExpandStep(uint64_t mask, const uint8_t* p) {
  ExpandedStep e;
  for (int i = 0; i < 2; ++i) {
    const auto m = static_cast<uint32_t>(mask >> (32 * i));
    const __m128i lo = Expand16(m & 0xffff, p);
    const __m128i hi = Expand16(m >> 16, p + __builtin_popcount(m & 0xffff));
    p += __builtin_popcount(m);
    VI v = _mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1);
    if constexpr (MASK != 0xff) v = ShlI<UP>(AndI(ShrI<SHIFT>(v), SetB(MASK)));
    e.v[i] = v;
  }
  return e;
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
