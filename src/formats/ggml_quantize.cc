// Float to block formats, with ggml's own rounding.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/ggml_quants.h"

namespace edgewise::formats {
namespace {

void StoreHalf(float value, uint8_t* p) {
  const uint16_t h = F32ToF16(value);
  p[0] = static_cast<uint8_t>(h & 255);
  p[1] = static_cast<uint8_t>(h >> 8);
}

// Not-a-number and infinity have no code; they become the nearest thing that does.
int ToInt(float x, int lowest, int highest) {
  if (!(x > static_cast<float>(lowest))) return lowest;
  if (x >= static_cast<float>(highest)) return highest;
  return static_cast<int>(x);
}

// d = max |x| / 127, q = round half away from zero
void Q8_0(const float* x, uint8_t* b) {
  float largest = 0;
  for (int j = 0; j < 32; ++j) largest = std::max(largest, std::fabs(x[j]));
  const float d = largest / 127.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  StoreHalf(d, b);
  for (int j = 0; j < 32; ++j) {
    b[2 + j] = static_cast<uint8_t>(ToInt(std::round(x[j] * inverse), -128, 127));
  }
}

// d = (the value of largest magnitude) / -8, so that this value is exact; q = trunc(x / d + 8.5)
void Q4_0(const float* x, uint8_t* b) {
  float largest = 0, at_largest = 0;
  for (int j = 0; j < 32; ++j) {
    if (std::fabs(x[j]) > largest) {
      largest = std::fabs(x[j]);
      at_largest = x[j];
    }
  }
  const float d = at_largest / -8.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  StoreHalf(d, b);
  for (int j = 0; j < 16; ++j) {
    const int lo = ToInt(x[j] * inverse + 8.5f, 0, 15);
    const int hi = ToInt(x[j + 16] * inverse + 8.5f, 0, 15);
    b[2 + j] = static_cast<uint8_t>(lo | (hi << 4));
  }
}

}  // namespace

Status QuantizeGgml(GgmlType type, std::span<const float> values, std::span<std::byte> blocks) {
  const GgmlTypeInfo& info = InfoOf(type);
  const auto per_block = static_cast<size_t>(info.block_elements);
  const size_t count = values.size() / per_block;
  if (values.size() % per_block != 0 ||
      blocks.size() / static_cast<size_t>(info.block_bytes) < count) {
    return InvalidArgument(fmt::format("{} values of type {} do not fit {} bytes", values.size(),
                                       info.name, blocks.size()));
  }
  switch (type) {
    case GgmlType::kF32:
    case GgmlType::kF16:
    case GgmlType::kBF16:
      ConvertFromF32(*info.dtype, values.data(), blocks.data(),
                     static_cast<int64_t>(values.size()));
      return Status::Ok();
    case GgmlType::kQ8_0:
    case GgmlType::kQ4_0:
      break;
    default:
      return Unsupported(
          fmt::format("cannot quantise to {}; choose F32, F16, BF16, Q8_0 or Q4_0", info.name));
  }
  auto* bytes = reinterpret_cast<uint8_t*>(blocks.data());
  const auto quantize = type == GgmlType::kQ8_0 ? Q8_0 : Q4_0;
  for (size_t i = 0; i < count; ++i) {
    quantize(values.data() + i * per_block, bytes + i * static_cast<size_t>(info.block_bytes));
  }
  return Status::Ok();
}

}  // namespace edgewise::formats
