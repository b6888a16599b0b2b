#include "kernels/packed/random_packed.h"

#include <gtest/gtest.h>

namespace edgewise::kernels {
namespace {

PackedFormat Format(Structure structure, int bits, int group) {
  PackedFormat f;
  f.rows = 528;  // two bands of 256 rows and a tile
  f.cols = 200;
  f.bits = bits;
  f.group = group;
  f.structure = structure;
  if (structure == Structure::kNM) {
    f.nm_n = 2;
    f.nm_m = 4;
  }
  if (structure == Structure::kBlock) f.block_cols = 64;
  return f;
}

TEST(RandomPacked, IsValidAndRepeatsItsFirstRows) {
  for (const Structure structure :
       {Structure::kDense, Structure::kUnstructured, Structure::kNM, Structure::kBlock}) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const int group : {0, 32}) {
        const auto m = RandomPackedMatrix(Format(structure, bits, group), 7, 0.5);
        ASSERT_TRUE(m.ok()) << m.status().message();
        // All that a hostile blob would be asked.
        const auto checked = PackedMatrix::FromBytes(m->bytes(), nullptr, Verify::kFull);
        ASSERT_TRUE(checked.ok()) << checked.status().message();
        std::vector<float> w(528 * 200);
        checked->UnpackRows(0, 528, w.data(), 200);
        int64_t zeros = 0;
        for (size_t i = 0; i < w.size(); ++i) {
          zeros += w[i] == 0;
          if (i >= 256 * 200) {
            ASSERT_EQ(w[i], w[i - 256 * 200]);
          }
        }
        if (structure != Structure::kDense) {
          EXPECT_GT(zeros, 528 * 200 * 2 / 5);
        }
      }
    }
  }
}

TEST(RandomPacked, RefusesWhatItCannotMake) {
  PackedFormat f = Format(Structure::kDense, 4, 0);
  f.rows = 17;
  EXPECT_FALSE(RandomPackedMatrix(f, 1, 1).ok());
  f.rows = 16;
  f.bits = 7;
  EXPECT_FALSE(RandomPackedMatrix(f, 1, 1).ok());
}

}  // namespace
}  // namespace edgewise::kernels
