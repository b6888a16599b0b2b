// 4 floats in plain C++ (the compiler's vector type, whatever the target makes of it). No fused
// multiply-add: a processor without it would have to emulate one. See inline.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/inline.h"
#include "tensor/dtype.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

using Vec = float __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kMr = 4;
constexpr int kNv = 2;

EW_INLINE Vec Load(const float* p) { return Vec{p[0], p[1], p[2], p[3]}; }
EW_INLINE void Store(float* p, Vec v) {
  for (int i = 0; i < kLanes; ++i) p[i] = v[i];
}
// The first n lanes, 0 <= n <= kLanes; the others are zero.
EW_INLINE Vec LoadN(const float* p, int64_t n) {
  Vec v = {0, 0, 0, 0};
  for (int i = 0; i < kLanes; ++i) {
    if (i < n) v[i] = p[i];
  }
  return v;
}
EW_INLINE void StoreN(float* p, Vec v, int64_t n) {
  for (int i = 0; i < kLanes; ++i) {
    if (i < n) p[i] = v[i];
  }
}
EW_INLINE Vec Set1(float f) { return Vec{f, f, f, f}; }
EW_INLINE Vec Iota() { return Vec{0, 1, 2, 3}; }
EW_INLINE Vec Fma(Vec a, Vec b, Vec c) { return a * b + c; }
// NaN in the second operand is kept (Min and Max).
EW_INLINE Vec Min(Vec a, Vec b) { return a < b ? a : b; }
EW_INLINE Vec Max(Vec a, Vec b) { return a > b ? a : b; }
EW_INLINE Vec Sqrt(Vec a) {
  for (int i = 0; i < kLanes; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
EW_INLINE Vec Round(Vec a) {
  // Adding 1.5 * 2^23 leaves no fraction bits; right for |a| < 2^22, all that is used here.
  const Vec magic = Set1(12582912.0f);
  return (a + magic) - magic;
}
// a < b ? x : y.
EW_INLINE Vec SelectLess(Vec a, Vec b, Vec x, Vec y) { return a < b ? x : y; }
EW_INLINE bool AnyLess(Vec a, Vec b) {
  bool any = false;
  for (int i = 0; i < kLanes; ++i) any = any || a[i] < b[i];
  return any;
}
// 2^n for integral n in [-126, 127].
EW_INLINE Vec Pow2(Vec n) {
  Vec v;
  for (int i = 0; i < kLanes; ++i) {
    const auto e = static_cast<uint32_t>(static_cast<int32_t>(n[i]) + 127) << 23;
    float f;
    __builtin_memcpy(&f, &e, sizeof f);
    v[i] = f;
  }
  return v;
}
// y 2^n for integral n in [-126, 127].
EW_INLINE Vec TimesPow2(Vec y, Vec n) { return y * Pow2(n); }
EW_INLINE float ReduceAdd(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
EW_INLINE float ReduceMax(Vec v) {
  const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}
EW_INLINE Vec LoadF16(const uint16_t* p) {
  return Vec{F16ToF32(p[0]), F16ToF32(p[1]), F16ToF32(p[2]), F16ToF32(p[3])};
}
EW_INLINE Vec LoadBF16(const uint16_t* p) {
  Vec v;
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t u = static_cast<uint32_t>(p[i]) << 16;
    float f;
    __builtin_memcpy(&f, &u, sizeof f);
    v[i] = f;
  }
  return v;
}

// r[i][j] <-> r[j][i] of a kLanes x kLanes block.
EW_INLINE void Transpose(Vec (&r)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = i + 1; j < kLanes; ++j) {
      const float t = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = t;
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
