// Block formats to float. Each function converts one block; products are formed in ggml's order, so
// that the values are equal to the last bit.
#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>

#include "formats/ggml_quants.h"

namespace edgewise::formats {
namespace {

using Block = const uint8_t*;

uint16_t Load16(Block p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }
uint32_t Load32(Block p) {
  return static_cast<uint32_t>(Load16(p)) | (static_cast<uint32_t>(Load16(p + 2)) << 16);
}
float LoadHalf(Block p) { return F16ToF32(Load16(p)); }
int Signed(uint8_t byte) { return static_cast<int8_t>(byte); }

// 32-element blocks: the low nibble of byte j is element j, the high one element j + 16.

// f16 d | 16 B nibbles: (q - 8) d
void Q4_0(Block b, float* y) {
  const float d = LoadHalf(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((b[2 + j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((b[2 + j] >> 4) - 8) * d;
  }
}

// f16 d | f16 m | 16 B nibbles: q d + m
void Q4_1(Block b, float* y) {
  const float d = LoadHalf(b), m = LoadHalf(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(b[4 + j] & 15) * d + m;
    y[j + 16] = static_cast<float>(b[4 + j] >> 4) * d + m;
  }
}

// f16 d | u32 fifth bits | 16 B nibbles: (q - 16) d
void Q5_0(Block b, float* y) {
  const float d = LoadHalf(b);
  const uint32_t high = Load32(b + 2);
  for (int j = 0; j < 16; ++j) {
    const int lo = (b[6 + j] & 15) | static_cast<int>(((high >> j) & 1) << 4);
    const int hi = (b[6 + j] >> 4) | static_cast<int>(((high >> (j + 16)) & 1) << 4);
    y[j] = static_cast<float>(lo - 16) * d;
    y[j + 16] = static_cast<float>(hi - 16) * d;
  }
}

// f16 d | f16 m | u32 fifth bits | 16 B nibbles: q d + m
void Q5_1(Block b, float* y) {
  const float d = LoadHalf(b), m = LoadHalf(b + 2);
  const uint32_t high = Load32(b + 4);
  for (int j = 0; j < 16; ++j) {
    const int lo = (b[8 + j] & 15) | static_cast<int>(((high >> j) & 1) << 4);
    const int hi = (b[8 + j] >> 4) | static_cast<int>(((high >> (j + 16)) & 1) << 4);
    y[j] = static_cast<float>(lo) * d + m;
    y[j + 16] = static_cast<float>(hi) * d + m;
  }
}

// f16 d | 32 B int8: q d
void Q8_0(Block b, float* y) {
  const float d = LoadHalf(b);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(Signed(b[2 + j])) * d;
}

// 256-element blocks ("K"): sub-blocks with small integer scales.

// 16 B scale (low nibble) and min (high) | 64 B 2-bit values | f16 d | f16 dmin
void Q2_K(Block b, float* y) {
  const float d = LoadHalf(b + 80), dmin = LoadHalf(b + 82);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, pair = i % 128 / 32, l = i % 32;
    const uint8_t scale = b[i / 16];
    const int q = (b[16 + 32 * half + l] >> (2 * pair)) & 3;
    const float dl = d * static_cast<float>(scale & 15);
    const float ml = dmin * static_cast<float>(scale >> 4);
    y[i] = dl * static_cast<float>(q) - ml;
  }
}

// 32 B third bits | 64 B low bits | 12 B of 16 six-bit scales | f16 d: d (s - 32) (q - 4)
void Q3_K(Block b, float* y) {
  const float d = LoadHalf(b + 108);
  const Block scales = b + 96;
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, pair = i % 128 / 32, l = i % 32, s = i / 16;
    const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
    const int scale = low | (((scales[8 + s % 4] >> (2 * (s / 4))) & 3) << 4);
    const int high = (b[l] >> (4 * half + pair)) & 1;
    const int q = ((b[32 + 32 * half + l] >> (2 * pair)) & 3) - (high != 0 ? 0 : 4);
    const float dl = d * static_cast<float>(scale - 32);
    y[i] = dl * static_cast<float>(q);
  }
}

// The eight 6-bit scales and mins of Q4_K and Q5_K in 12 bytes.
struct ScaleMin {
  int scale, min;
};
ScaleMin UnpackScaleMin(Block s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)};
}

// f16 d | f16 dmin | 12 B scales | 128 B nibbles (each 32 bytes hold two sub-blocks)
void Q4_K(Block b, float* y) {
  const float d = LoadHalf(b), dmin = LoadHalf(b + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin sm = UnpackScaleMin(b + 4, j);
    const float dl = d * static_cast<float>(sm.scale), ml = dmin * static_cast<float>(sm.min);
    const Block qs = b + 16 + 32 * (j / 2);
    for (int l = 0; l < 32; ++l) {
      const int q = j % 2 == 0 ? qs[l] & 15 : qs[l] >> 4;
      y[32 * j + l] = dl * static_cast<float>(q) - ml;
    }
  }
}

// f16 d | f16 dmin | 12 B scales | 32 B fifth bits (bit j: sub-block j) | 128 B nibbles
void Q5_K(Block b, float* y) {
  const float d = LoadHalf(b), dmin = LoadHalf(b + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin sm = UnpackScaleMin(b + 4, j);
    const float dl = d * static_cast<float>(sm.scale), ml = dmin * static_cast<float>(sm.min);
    const Block qs = b + 48 + 32 * (j / 2);
    for (int l = 0; l < 32; ++l) {
      const int low = j % 2 == 0 ? qs[l] & 15 : qs[l] >> 4;
      const int q = low | (((b[16 + l] >> j) & 1) << 4);
      y[32 * j + l] = dl * static_cast<float>(q) - ml;
    }
  }
}

// 128 B low nibbles | 64 B high bit pairs | 16 int8 scales | f16 d: d s (q - 32)
void Q6_K(Block b, float* y) {
  const float d = LoadHalf(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const uint8_t nibbles = b[64 * half + 32 * (quarter % 2) + l];
    const int low = quarter < 2 ? nibbles & 15 : nibbles >> 4;
    const int high = (b[128 + 32 * half + l] >> (2 * quarter)) & 3;
    const float dl = d * static_cast<float>(Signed(b[192 + i / 16]));
    y[i] = dl * static_cast<float>((low | (high << 4)) - 32);
  }
}

// The non-uniform levels of IQ4_NL and IQ4_XS, and those of the 4-bit float e2m1, doubled.
constexpr std::array<int, 16> kIq4Levels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
constexpr std::array<int, 16> kE2M1Doubled = {0, 1,  2,  3,  4,  6,  8,  12,
                                              0, -1, -2, -3, -4, -6, -8, -12};

// f16 d | 16 B indices
void IQ4_NL(Block b, float* y) {
  const float d = LoadHalf(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kIq4Levels[b[2 + j] & 15]);
    y[j + 16] = d * static_cast<float>(kIq4Levels[b[2 + j] >> 4]);
  }
}

// f16 d | u16 high bits of 8 scales | 4 B low nibbles of them | 128 B indices
void IQ4_XS(Block b, float* y) {
  const float d = LoadHalf(b);
  const uint16_t high = Load16(b + 2);
  for (int j = 0; j < 8; ++j) {
    const int scale = ((b[4 + j / 2] >> (4 * (j % 2))) & 15) | (((high >> (2 * j)) & 3) << 4);
    const float dl = d * static_cast<float>(scale - 32);
    const Block qs = b + 8 + 16 * j;
    for (int l = 0; l < 16; ++l) {
      y[32 * j + l] = dl * static_cast<float>(kIq4Levels[qs[l] & 15]);
      y[32 * j + l + 16] = dl * static_cast<float>(kIq4Levels[qs[l] >> 4]);
    }
  }
}

// u8 exponent e | 16 B e2m1 indices: level 2^(e - 127), here doubled levels times 2^(e - 128)
void MXFP4(Block b, float* y) {
  const uint32_t e = b[0];
  const float d = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kE2M1Doubled[b[1 + j] & 15]);
    y[j + 16] = d * static_cast<float>(kE2M1Doubled[b[1 + j] >> 4]);
  }
}

using BlockFn = void (*)(Block, float*);

BlockFn FunctionOf(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
      return Q4_0;
    case GgmlType::kQ4_1:
      return Q4_1;
    case GgmlType::kQ5_0:
      return Q5_0;
    case GgmlType::kQ5_1:
      return Q5_1;
    case GgmlType::kQ8_0:
      return Q8_0;
    case GgmlType::kQ2_K:
      return Q2_K;
    case GgmlType::kQ3_K:
      return Q3_K;
    case GgmlType::kQ4_K:
      return Q4_K;
    case GgmlType::kQ5_K:
      return Q5_K;
    case GgmlType::kQ6_K:
      return Q6_K;
    case GgmlType::kIQ4_NL:
      return IQ4_NL;
    case GgmlType::kIQ4_XS:
      return IQ4_XS;
    case GgmlType::kMXFP4:
      return MXFP4;
    default:
      return nullptr;
  }
}

}  // namespace

Status DequantizeGgml(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const GgmlTypeInfo& info = InfoOf(type);
  if (!info.dequantizes) {
    return Unsupported(
        fmt::format("values of type {} cannot be read; requantise the model, for "
                    "example to Q4_K_M or Q8_0",
                    info.name));
  }
  const auto per_block = static_cast<size_t>(info.block_elements);
  const auto block_bytes = static_cast<size_t>(info.block_bytes);
  const size_t count = out.size() / per_block;
  if (out.size() % per_block != 0 || blocks.size() / block_bytes < count) {
    return InvalidArgument(fmt::format("{} values of type {} do not come from {} bytes", out.size(),
                                       info.name, blocks.size()));
  }
  if (info.dtype) {
    ConvertToF32(*info.dtype, blocks.data(), out.data(), static_cast<int64_t>(out.size()));
    return Status::Ok();
  }
  const BlockFn convert = FunctionOf(type);
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks.data());
  for (size_t i = 0; i < count; ++i) convert(bytes + i * block_bytes, out.data() + i * per_block);
  return Status::Ok();
}

}  // namespace edgewise::formats
