#include "kernels/packed/gguf_blocks.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/checked.h"

namespace edgewise::kernels {
namespace {

struct BlockForm {
  int64_t elements, bytes;
  int bits, group;
  bool super, has_min;
};

BlockForm FormOf(GgufBlock type) {
  switch (type) {
    case GgufBlock::kQ4_0:
      return {32, 18, 4, 32, false, false};
    case GgufBlock::kQ4_1:
      return {32, 20, 4, 32, false, true};
    case GgufBlock::kQ5_0:
      return {32, 22, 5, 32, false, false};
    case GgufBlock::kQ5_1:
      return {32, 24, 5, 32, false, true};
    case GgufBlock::kQ8_0:
      return {32, 34, 8, 32, false, false};
    case GgufBlock::kQ4_K:
      return {256, 144, 4, 32, true, true};
    case GgufBlock::kQ5_K:
      return {256, 176, 5, 32, true, true};
    case GgufBlock::kQ6_K:
      return {256, 210, 6, 16, true, false};
  }
  return {};
}

float Half(const uint8_t* p) { return F16ToF32(static_cast<uint16_t>(p[0] | (p[1] << 8))); }

// Where one block goes: q [elements], factors [elements / group] or one and as many integers.
struct BlockOut {
  int8_t* q;
  float *scale, *min;
  int8_t *sub_scale, *sub_min;
};

// Q4_0, Q4_1, Q5_0, Q5_1: 32 elements, nibble j and j + 16 in byte j, fifth bits in a word.
void ReadSmall(const BlockForm& form, const uint8_t* b, const BlockOut& out) {
  *out.scale = Half(b);
  b += 2;
  if (form.has_min) {
    *out.min = Half(b);
    b += 2;
  }
  uint32_t high = 0;
  if (form.bits == 5) {
    high = static_cast<uint32_t>(b[0]) | static_cast<uint32_t>(b[1]) << 8 |
           static_cast<uint32_t>(b[2]) << 16 | static_cast<uint32_t>(b[3]) << 24;
    b += 4;
  }
  const int zero = form.has_min ? 0 : 1 << (form.bits - 1);
  if (form.bits == 4) {
    for (int j = 0; j < 16; ++j) {
      out.q[j] = static_cast<int8_t>((b[j] & 15) - zero);
      out.q[j + 16] = static_cast<int8_t>((b[j] >> 4) - zero);
    }
    return;
  }
  for (uint32_t j = 0; j < 32; ++j) {
    const uint32_t nibble = j < 16 ? b[j] & 15u : b[j - 16] >> 4;
    const uint32_t code = nibble | ((high >> j) & 1) << 4;
    out.q[j] = static_cast<int8_t>(static_cast<int>(code) - zero);
  }
}

void ReadQ8(const uint8_t* b, const BlockOut& out) {
  *out.scale = Half(b);
  for (int j = 0; j < 32; ++j) out.q[j] = static_cast<int8_t>(b[2 + j]);
}

// Q4_K, Q5_K: d, dmin, 8 pairs of 6-bit scales and mins in 12 bytes, [fifth bits 32], nibbles 128.
void ReadK45(const BlockForm& form, const uint8_t* b, const BlockOut& out) {
  *out.scale = Half(b);
  *out.min = -Half(b + 2);
  const uint8_t* s = b + 4;
  for (int j = 0; j < 8; ++j) {
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    const int min = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    out.sub_scale[j] = static_cast<int8_t>(scale);
    out.sub_min[j] = static_cast<int8_t>(min);
  }
  const uint8_t* high = form.bits == 5 ? b + 16 : nullptr;
  const uint8_t* nibbles = b + (form.bits == 5 ? 48 : 16);
  for (int j = 0; j < 256; ++j) {
    // Chunks of 64: the low nibbles of 32 bytes, then their high ones.
    const int chunk = j / 64, half = j / 32 % 2, i = j % 32;
    const int nibble = (nibbles[chunk * 32 + i] >> (4 * half)) & 15;
    const int fifth = high == nullptr ? 0 : (high[i] >> (2 * chunk + half)) & 1;
    out.q[j] = static_cast<int8_t>(nibble | fifth << 4);
  }
}

// Q6_K: low nibbles 128, high pairs 64, 16 signed scales, d.
void ReadK6(const uint8_t* b, const BlockOut& out) {
  const uint8_t *low = b, *high = b + 128;
  for (int j = 0; j < 16; ++j) out.sub_scale[j] = static_cast<int8_t>(b[192 + j]);
  *out.scale = Half(b + 208);
  for (int j = 0; j < 256; ++j) {
    const int part = j / 128, quarter = j / 32 % 4, i = j % 32;
    const int nibble = (low[part * 64 + quarter % 2 * 32 + i] >> (quarter / 2 * 4)) & 15;
    const int pair = (high[part * 32 + i] >> (2 * quarter)) & 3;
    out.q[j] = static_cast<int8_t>((nibble | pair << 4) - 32);
  }
}

}  // namespace

bool IsPackableGguf(uint32_t t) {
  return t == 2 || t == 3 || t == 6 || t == 7 || t == 8 || (t >= 12 && t <= 14);
}

Result<PackedMatrix> PackGguf(GgufBlock type, std::span<const std::byte> bytes, int64_t rows,
                              int64_t cols, const int64_t* row_order) {
  const BlockForm form = FormOf(type);
  if (form.elements == 0) {
    return Unsupported(fmt::format("GGUF type {} has no packed form", static_cast<int>(type)));
  }
  PackedFormat f;
  f.rows = rows;
  f.cols = cols;
  f.bits = form.bits;
  f.group = form.group;
  f.scale_type = form.super ? ScaleType::kSuper : ScaleType::kF16;
  f.has_min = form.has_min;
  f.act_group = 32;
  EW_RETURN_IF_ERROR(CheckFormat(f));
  if (cols % form.elements != 0) {
    return BadInput(
        fmt::format("GGUF rows of {} elements are not whole blocks of {}", cols, form.elements));
  }
  const int64_t per_row = cols / form.elements;
  const auto expected = CheckedProduct(std::array{rows, per_row, form.bytes});
  if (!expected || static_cast<uint64_t>(*expected) != bytes.size()) {
    return BadInput(fmt::format("GGUF tensor of {} bytes; {} x {} of its type needs {}",
                                bytes.size(), rows, cols, expected.value_or(-1)));
  }
  const int64_t groups = cols / form.group;
  std::vector<int8_t> q(static_cast<size_t>(rows * cols));
  std::vector<float> scales(static_cast<size_t>(rows * per_row)), mins(scales.size());
  std::vector<int8_t> subs(form.super ? static_cast<size_t>(rows * groups) : 0), sub_mins(subs);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t from = row_order == nullptr ? r : row_order[r];
    if (from < 0 || from >= rows) return InvalidArgument("row order out of range");
    for (int64_t b = 0; b < per_row; ++b) {
      const auto* block =
          reinterpret_cast<const uint8_t*>(bytes.data()) + (from * per_row + b) * form.bytes;
      const int64_t at = r * per_row + b;
      BlockOut out{q.data() + at * form.elements, scales.data() + at, mins.data() + at, nullptr,
                   nullptr};
      if (form.super) {
        out.sub_scale = subs.data() + at * (form.elements / form.group);
        out.sub_min = sub_mins.data() + at * (form.elements / form.group);
      }
      if (type == GgufBlock::kQ8_0) {
        ReadQ8(block, out);
      } else if (type == GgufBlock::kQ6_K) {
        ReadK6(block, out);
      } else if (form.super) {
        ReadK45(form, block, out);
      } else {
        ReadSmall(form, block, out);
      }
    }
  }
  QuantizedWeights w;
  w.q = q.data();
  w.scales = w.super_scales = scales.data();
  w.mins = w.super_mins = mins.data();
  w.sub_scales = subs.data();
  w.sub_mins = sub_mins.data();
  return PackFromQuantized(f, w);
}

}  // namespace edgewise::kernels
