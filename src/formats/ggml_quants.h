// The block formats of ggml (https://github.com/ggml-org/ggml): sizes of all of them, conversion to
// float of those that models are published in, and quantisation to Q8_0 and Q4_0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "tensor/dtype.h"

namespace edgewise::formats {

// The numbers are those of GGUF files.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;       // "Q4_K"
  int64_t block_elements;      // elements of a row that share a block; 1 for dense types
  int64_t block_bytes;         // bytes of a block
  bool dequantizes;            // DequantizeGgml knows it
  std::optional<DType> dtype;  // for dense types
};

// Nothing for numbers that are not a type (or no longer one).
const GgmlTypeInfo* FindGgmlType(uint32_t number);
const GgmlTypeInfo* FindGgmlType(std::string_view name);
const GgmlTypeInfo& InfoOf(GgmlType type);

// n elements (a multiple of block_elements) from `blocks` (any alignment, at least
// n / block_elements * block_bytes) to float. The values are those of ggml's own conversion, bit
// for bit. Error: kUnsupported when the type does not dequantise here, kInvalidArgument when a size
// is wrong.
Status DequantizeGgml(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

// Rounds to the nearest code as ggml does; `values` is a multiple of 32. Types: F32, F16, BF16,
// Q8_0, Q4_0.
Status QuantizeGgml(GgmlType type, std::span<const float> values, std::span<std::byte> blocks);

}  // namespace edgewise::formats
