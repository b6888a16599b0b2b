// A tile as one vector of 16 lanes, for any processor.
#pragma once

// Nothing here is called: how such vectors would be passed does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#include <cmath>

#include "kernels/packed/cpu/common.h"
#include "tensor/dtype.h"

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

// GCC and Clang make of these what the baseline has, four registers or sixteen.
using VI = uint32_t __attribute__((vector_size(64)));
using SI = int32_t __attribute__((vector_size(64)));
using SH = int16_t __attribute__((vector_size(64)));
using UH = uint16_t __attribute__((vector_size(64)));
using VF = float __attribute__((vector_size(64)));
constexpr int kVecs = 1;
constexpr int kVecBytes = 64;
constexpr int kPanelTiles = 1;
// Its lanes are in memory anyway, and code for six rows takes a minute to compile.
constexpr bool kRowByRow = true;
constexpr int kKeepTiles = 0;
constexpr bool kSignedPanel8 = false;

#include "kernels/packed/cpu/constants.inl.h"

template <typename Fn>
EW_INLINE VI MapI(Fn fn) {
  VI v;
  for (int i = 0; i < 16; ++i) v[i] = static_cast<uint32_t>(fn(i));
  return v;
}
template <typename Fn>
EW_INLINE VF MapF(Fn fn) {
  VF v;
  for (int i = 0; i < 16; ++i) v[i] = fn(i);
  return v;
}

EW_INLINE VI LoadI(const void* p) {
  VI v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
EW_INLINE void StoreI(void* p, const VI& v) { __builtin_memcpy(p, &v, sizeof v); }
EW_INLINE VI SetI(int x) { return VI{} + static_cast<uint32_t>(x); }
EW_INLINE VI SetB(int x) {
  return MapI([&](int) { return static_cast<uint32_t>(x & 0xff) * 0x01010101u; });
}
EW_INLINE VI BroadcastI(const void* p) {
  int x;
  __builtin_memcpy(&x, p, 4);
  return SetI(x);
}
EW_INLINE VI AddI(const VI& a, const VI& b) { return a + b; }
EW_INLINE VI SubI(const VI& a, const VI& b) { return a - b; }
EW_INLINE VI MulI(const VI& a, const VI& b) { return a * b; }
EW_INLINE int Signed(uint32_t x) { return static_cast<int>(x); }
EW_INLINE VI MaxI(const VI& a, const VI& b) {
  return reinterpret_cast<const SI&>(a) > reinterpret_cast<const SI&>(b) ? a : b;
}
EW_INLINE int32_t ReduceMaxI(const VI& a) {
  int top = Signed(a[0]);
  for (int i = 1; i < 16; ++i) top = Signed(a[i]) > top ? Signed(a[i]) : top;
  return top;
}
EW_INLINE VI ClampI(const VI& a, int lo, int hi) {
  return MapI([&](int i) {
    const int x = Signed(a[i]);
    return x < lo ? lo : x > hi ? hi : x;
  });
}
EW_INLINE VI AndI(const VI& a, const VI& b) { return a & b; }
EW_INLINE VI OrI(const VI& a, const VI& b) { return a | b; }
EW_INLINE VI XorI(const VI& a, const VI& b) { return a ^ b; }
template <int N>
EW_INLINE VI ShrI(const VI& a) {
  return a >> N;
}
template <int N>
EW_INLINE VI ShlI(const VI& a) {
  return a << N;
}
EW_INLINE VI ShrVarI(const VI& a, int n) { return a >> n; }
EW_INLINE VI ShlLanesI(const VI& a, const VI& n) {
  return MapI([&](int i) { return n[i] < 32 ? a[i] << n[i] : 0u; });
}

template <bool kSignedW>
EW_INLINE VI Dot(const VI& acc, const VI& w, const VI& a) {
  static_assert(!kSignedW);
  // A product of a code and an activation fits 16 bits; two of them are added in 32.
  const auto both = [](SH p) EW_LAMBDA_INLINE {
    const auto x = (SI)p;
    return (VI)((SI)((VI)x << 16) >> 16) + (VI)(x >> 16);
  };
  const auto codes = (UH)w;
  const auto acts = (UH)a;
  const SH even = (SH)(codes & 0xff) * ((SH)(acts << 8) >> 8);
  const SH odd = (SH)(codes >> 8) * ((SH)acts >> 8);
  return acc + both(even) + both(odd);
}

// Byte i: one of the 16 at p, which `index` names (below 16).
EW_INLINE VI SelectBytes(const void* p, const VI& index) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  return MapI([&](int i) {
    const uint32_t at = index[i];
    return uint32_t{bytes[at & 15]} | uint32_t{bytes[(at >> 8) & 15]} << 8 |
           uint32_t{bytes[(at >> 16) & 15]} << 16 | uint32_t{bytes[(at >> 24) & 15]} << 24;
  });
}

EW_INLINE VF LoadF(const float* p) {
  VF v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
EW_INLINE void StoreF(float* p, const VF& v) { __builtin_memcpy(p, &v, sizeof v); }
EW_INLINE VF SetF(float x) { return VF{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
EW_INLINE VF AddF(const VF& a, const VF& b) { return a + b; }
EW_INLINE VF MulF(const VF& a, const VF& b) { return a * b; }
EW_INLINE VF FmaF(const VF& a, const VF& b, const VF& c) {
  return MapF([&](int i) { return std::fma(a[i], b[i], c[i]); });
}
EW_INLINE VF FloorF(const VF& a) {
  return MapF([&](int i) { return std::floor(a[i]); });
}
EW_INLINE VF ToF(const VI& a) { return __builtin_convertvector((SI)a, VF); }
// Nearest, ties to even; what does not fit (NaN) becomes INT_MIN, as x86 does.
EW_INLINE VI RoundI(const VF& a) {
  return MapI([&](int i) {
    const float r = std::nearbyint(a[i]);
    return r >= -2147483648.0f && r < 2147483648.0f ? static_cast<int32_t>(r)
                                                    : static_cast<int32_t>(0x80000000u);
  });
}
EW_INLINE VI BitsOf(const VF& a) {
  VI v;
  __builtin_memcpy(&v, &a, sizeof v);
  return v;
}
EW_INLINE VF AsF(const VI& a) {
  VF v;
  __builtin_memcpy(&v, &a, sizeof v);
  return v;
}
EW_INLINE void StoreAsInt8(int8_t* p, const VI& v) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(v[i]);
}
EW_INLINE VI LoadInt8(const int8_t* p) {
  return MapI([&](int i) { return static_cast<int>(p[i]); });
}
EW_INLINE VF LoadHalf(const uint8_t* p) {
  return MapF([&](int i) {
    uint16_t h;
    __builtin_memcpy(&h, p + 2 * i, 2);
    return F16ToF32(h);
  });
}

EW_INLINE void Transpose4x4(const uint8_t* in, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) out[4 * i + j] = in[4 * j + i];
  }
}
EW_INLINE void SumsOf16(const int8_t* q, int32_t* sums) {
  for (int i = 0; i < 4; ++i) {
    sums[i] = 0;
    for (int j = 0; j < 16; ++j) sums[i] += q[16 * i + j];
  }
}

using ExpandedStep = VI;
EW_INLINE const VI& StepVector(const VI& a, int) { return a; }
EW_INLINE VI OrStep(const VI& a, const VI& b) { return OrI(a, b); }
EW_INLINE void StoreStep(uint8_t* out, const VI& a, const VI& flip) { StoreI(out, XorI(a, flip)); }

template <int SHIFT, int MASK, int UP>
EW_INLINE VI ExpandStep(uint64_t mask, const uint8_t* p) {
  uint8_t bytes[64];
  // Without branches, which nothing could predict.
  for (int i = 0; i < 64; ++i, mask >>= 1) {
    const auto kept = static_cast<uint8_t>(mask & 1);
    bytes[i] = static_cast<uint8_t>((((*p >> SHIFT) & MASK) << UP) & -kept);
    p += kept;
  }
  return LoadI(bytes);
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
