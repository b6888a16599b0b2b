// Storage forms of hidden states. The residual stream has outlier features, so the 8-bit form
// scales groups of 64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace edgewise::tune {

// On disk by value: never renumber.
enum class HiddenCodec : uint32_t {
  kF32 = 0,   // exact
  kBF16 = 1,  // relative error <= 2^-9 per value
  kInt8 = 2,  // error <= max|group of 64| / 254 (1 + 2^-7) per value; bf16 scales, rounded up
};

Result<HiddenCodec> ParseHiddenCodec(std::string_view name);  // "f32", "bf16", "int8"
std::string_view HiddenCodecName(HiddenCodec codec);

// Bytes of one row of n values.
int64_t EncodedRowBytes(HiddenCodec codec, int64_t n);
void EncodeRows(HiddenCodec codec, int64_t rows, int64_t n, const float* values, std::byte* out);
void DecodeRows(HiddenCodec codec, int64_t rows, int64_t n, const std::byte* in, float* values);

}  // namespace edgewise::tune
