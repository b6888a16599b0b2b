// GGUF blocks that are packed as they are keep their values, bit for bit.
#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "formats/ggml_quants.h"
#include "kernels/packed/gguf_blocks.h"

namespace edgewise {
namespace {

using formats::GgmlType;
using kernels::GgufBlock;

// Offsets of the fp16 numbers in a block.
std::vector<size_t> Halves(GgufBlock type) {
  switch (type) {
    case GgufBlock::kQ4_0:
    case GgufBlock::kQ5_0:
    case GgufBlock::kQ8_0:
      return {0};
    case GgufBlock::kQ6_K:
      return {208};
    default:
      return {0, 2};
  }
}

TEST(PackedGguf, ValuesAreThoseOfTheBlocks) {
  for (const GgufBlock type :
       {GgufBlock::kQ4_0, GgufBlock::kQ4_1, GgufBlock::kQ5_0, GgufBlock::kQ5_1, GgufBlock::kQ8_0,
        GgufBlock::kQ4_K, GgufBlock::kQ5_K, GgufBlock::kQ6_K}) {
    SCOPED_TRACE(static_cast<int>(type));
    const auto ggml = static_cast<GgmlType>(type);
    const formats::GgmlTypeInfo& info = formats::InfoOf(ggml);
    const int64_t rows = 21, cols = 768, per_row = cols / info.block_elements;
    Rng rng(11, RngStream::kTest, static_cast<uint64_t>(type));
    std::vector<std::byte> blocks(static_cast<size_t>(rows * per_row * info.block_bytes));
    for (std::byte& b : blocks) b = static_cast<std::byte>(rng.NextBelow(256));
    for (int64_t i = 0; i < rows * per_row; ++i) {
      for (const size_t at : Halves(type)) {
        const uint16_t half = F32ToF16(static_cast<float>(rng.NextNormal()) * 0.01f);
        std::memcpy(blocks.data() + i * info.block_bytes + at, &half, 2);
      }
    }
    std::vector<float> want(static_cast<size_t>(rows * cols)), got(want.size());
    ASSERT_TRUE(formats::DequantizeGgml(ggml, blocks, want).ok());
    std::vector<int64_t> order(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) order[static_cast<size_t>(r)] = rows - 1 - r;
    for (const bool permuted : {false, true}) {
      Result<kernels::PackedMatrix> m =
          kernels::PackGguf(type, blocks, rows, cols, permuted ? order.data() : nullptr);
      ASSERT_TRUE(m.ok()) << m.status().message();
      m->UnpackRows(0, rows, got.data(), cols);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t from = permuted ? rows - 1 - r : r;
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_EQ(got[static_cast<size_t>(r * cols + c)],
                    want[static_cast<size_t>(from * cols + c)])
              << r << " " << c;
        }
      }
      // Little larger than the file's own blocks: 8-bit instead of 6-bit sub-scales, and a header.
      EXPECT_LE(static_cast<double>(m->bytes().size()),
                1.06 * static_cast<double>(blocks.size()) * 32 / 21 + 512);
    }
    EXPECT_FALSE(kernels::PackGguf(type, std::span(blocks).subspan(1), rows, cols).ok());
    EXPECT_FALSE(kernels::PackGguf(type, blocks, rows, cols + 1).ok());
  }
}

}  // namespace
}  // namespace edgewise
