#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace edgewise {
namespace {

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Rng, IsAFunctionOfItsKey) {
  Rng a(1, RngStream::kInit, 7), b(1, RngStream::kInit, 7), c(1, RngStream::kDropout, 7);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const uint32_t x = a.NextU32();
    EXPECT_EQ(x, b.NextU32());
    differs |= x != c.NextU32();
  }
  EXPECT_TRUE(differs);
}

TEST(Rng, PermutationHoldsEveryIndexOnce) {
  auto p = RandomPermutation(1000, Rng(3, RngStream::kDataOrder, 1));
  EXPECT_NE(p[0] * 1000 + p[1], 1);
  std::sort(p.begin(), p.end());
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(p[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace edgewise
