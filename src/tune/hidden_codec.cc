#include "tune/hidden_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "tensor/dtype.h"

namespace edgewise::tune {
namespace {

constexpr int64_t kGroup = 64;

// One group: bf16 scale (any range, 8 bits are enough), then one code per value.
std::byte* EncodeGroup(const float* x, int64_t n, std::byte* out) {
  float top = 0;
  for (int64_t i = 0; i < n; ++i) top = std::max(top, std::abs(x[i]));
  uint16_t stored = F32ToBF16(top / 127.0f);
  // A scale rounded down would push the largest value past code 127.
  if (BF16ToF32(stored) * 127.0f < top) ++stored;
  const float scale = BF16ToF32(stored);
  std::memcpy(out, &stored, 2);
  out += 2;
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::clamp(std::nearbyint(x[i] * inverse), -127.0f, 127.0f);
    *out++ = static_cast<std::byte>(static_cast<int8_t>(code));
  }
  return out;
}

const std::byte* DecodeGroup(const std::byte* in, int64_t n, float* x) {
  uint16_t stored;
  std::memcpy(&stored, in, 2);
  in += 2;
  const float scale = BF16ToF32(stored);
  for (int64_t i = 0; i < n; ++i) x[i] = scale * static_cast<float>(static_cast<int8_t>(*in++));
  return in;
}

}  // namespace

Result<HiddenCodec> ParseHiddenCodec(std::string_view name) {
  for (HiddenCodec codec : {HiddenCodec::kF32, HiddenCodec::kBF16, HiddenCodec::kInt8}) {
    if (HiddenCodecName(codec) == name) return codec;
  }
  return InvalidArgument(
      fmt::format("'{}' is not a form of the cache; known: f32, bf16, int8", name));
}

std::string_view HiddenCodecName(HiddenCodec codec) {
  switch (codec) {
    case HiddenCodec::kF32:
      return "f32";
    case HiddenCodec::kBF16:
      return "bf16";
    case HiddenCodec::kInt8:
      return "int8";
  }
  return "?";
}

int64_t EncodedRowBytes(HiddenCodec codec, int64_t n) {
  switch (codec) {
    case HiddenCodec::kF32:
      return 4 * n;
    case HiddenCodec::kBF16:
      return 2 * n;
    case HiddenCodec::kInt8:
      return n + 2 * CeilDiv(n, kGroup);
  }
  return 0;
}

void EncodeRows(HiddenCodec codec, int64_t rows, int64_t n, const float* values, std::byte* out) {
  switch (codec) {
    case HiddenCodec::kF32:
      std::memcpy(out, values, static_cast<size_t>(rows * n) * 4);
      return;
    case HiddenCodec::kBF16:
      ConvertFromF32(DType::kBF16, values, out, rows * n);
      return;
    case HiddenCodec::kInt8:
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t g = 0; g < n; g += kGroup) {
          out = EncodeGroup(values + r * n + g, std::min(kGroup, n - g), out);
        }
      }
      return;
  }
}

void DecodeRows(HiddenCodec codec, int64_t rows, int64_t n, const std::byte* in, float* values) {
  switch (codec) {
    case HiddenCodec::kF32:
      std::memcpy(values, in, static_cast<size_t>(rows * n) * 4);
      return;
    case HiddenCodec::kBF16:
      ConvertToF32(DType::kBF16, in, values, rows * n);
      return;
    case HiddenCodec::kInt8:
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t g = 0; g < n; g += kGroup) {
          in = DecodeGroup(in, std::min(kGroup, n - g), values + r * n + g);
        }
      }
      return;
  }
}

}  // namespace edgewise::tune
