// Element types of dense tensors, and conversions of the 16-bit ones.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace edgewise {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kBool
};

size_t DTypeBytes(DType dtype);
std::string_view DTypeName(DType dtype);  // safetensors names: "F32", "BF16", ...

// IEEE binary16 <-> binary32; round to nearest even, overflow to infinity, NaN stays NaN.
float F16ToF32(uint16_t h);
uint16_t F32ToF16(float f);

inline float BF16ToF32(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }
inline uint16_t F32ToBF16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40);  // quiet NaN
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

// n elements of `from` (any alignment) to float; only float types (F32, F16, BF16, F64).
void ConvertToF32(DType from, const void* src, float* dst, int64_t n);
// n floats to `to` (F32, F16, BF16), round to nearest even.
void ConvertFromF32(DType to, const float* src, void* dst, int64_t n);
bool IsFloatDType(DType dtype);

}  // namespace edgewise
