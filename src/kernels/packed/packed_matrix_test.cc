#include "kernels/packed/packed_matrix.h"

#include <gtest/gtest.h>

#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

constexpr uint64_t kSeed = 20240607;

struct Dim {
  int64_t rows, cols;
};

TEST(PackedMatrix, UnpacksToWhatWasPacked) {
  for (const Dim d : {Dim{1, 1}, Dim{16, 32}, Dim{37, 200}, Dim{64, 256}, Dim{5, 513}}) {
    for (const PackedFormat& f : TestFormats(d.rows, d.cols)) {
      SCOPED_TRACE(Describe(f));
      Rng rng(kSeed, RngStream::kTest, static_cast<uint64_t>(d.cols));
      const RandomPacked w = MakeRandomPacked(f, rng);
      Result<PackedMatrix> m = PackFromQuantized(f, w.View(f));
      ASSERT_TRUE(m.ok()) << m.status().message();
      std::vector<float> out(static_cast<size_t>(d.rows * d.cols));
      m->UnpackRows(0, d.rows, out.data(), d.cols);
      for (int64_t r = 0; r < d.rows; ++r) {
        for (int64_t c = 0; c < d.cols; ++c) {
          ASSERT_EQ(out[static_cast<size_t>(r * d.cols + c)], ExpectedValue(f, w, r, c))
              << "row " << r << " column " << c;
        }
      }
      // The same bytes at an odd address are the same matrix, fully verified.
      std::vector<std::byte> copy(m->bytes().size() + 1);
      std::copy(m->bytes().begin(), m->bytes().end(), copy.begin() + 1);
      Result<PackedMatrix> view = PackedMatrix::FromBytes(std::span(copy).subspan(1), nullptr);
      ASSERT_TRUE(view.ok()) << view.status().message();
      std::vector<float> again(static_cast<size_t>(d.cols));
      view->UnpackRows(d.rows - 1, 1, again.data(), d.cols);
      EXPECT_TRUE(std::equal(again.begin(), again.end(), out.end() - d.cols));
    }
  }
}

TEST(PackedMatrix, PackRoundsToTheNearestCode) {
  Rng rng(kSeed, RngStream::kTest);
  const int64_t rows = 33, cols = 160;
  std::vector<float> w(static_cast<size_t>(rows * cols));
  for (float& x : w) x = static_cast<float>(rng.NextNormal() * 0.02);
  for (const PackedFormat& f : TestFormats(rows, cols)) {
    if (f.scale_type == ScaleType::kSuper) continue;
    SCOPED_TRACE(Describe(f));
    Result<PackedMatrix> m = Pack(f, w.data(), cols);
    ASSERT_TRUE(m.ok()) << m.status().message();
    std::vector<float> out(w.size());
    m->UnpackRows(0, rows, out.data(), cols);
    const int64_t group = f.group == 0 ? cols : f.group;
    const int levels = f.has_min ? (1 << f.bits) - 1 : (1 << (f.bits - 1)) - 1;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        float range = 0;
        for (int64_t k = c / group * group; k < std::min(cols, (c / group + 1) * group); ++k) {
          range = std::max(
              range, std::fabs(w[static_cast<size_t>(r * cols + k)]) * (f.has_min ? 2.0f : 1.0f));
        }
        const auto i = static_cast<size_t>(r * cols + c);
        if (f.structure == Structure::kNM && out[i] == 0) continue;
        // Half a step, plus the rounding of scale (and min) to fp16: 2^-11 of the range.
        EXPECT_LE(std::fabs(out[i] - w[i]), range * (0.5f / levels + 2 * 0x1p-11f))
            << r << " " << c;
      }
    }
  }
}

TEST(PackedMatrix, SparseFourBitsIsSmall) {
  for (const Dim d : {Dim{576, 576}, Dim{1536, 576}, Dim{576, 1536}, Dim{512, 2048}}) {
    PackedFormat f;
    f.rows = d.rows;
    f.cols = d.cols;
    f.bits = 4;
    f.group = 64;
    f.structure = Structure::kUnstructured;
    Rng rng(kSeed, RngStream::kTest);
    RandomPacked w = MakeRandomPacked(f, rng);
    // Exactly half of every row, as pruning leaves it.
    for (int64_t r = 0; r < d.rows; ++r) {
      const std::vector<int64_t> order = RandomPermutation(d.cols, Rng(kSeed, RngStream::kTest, r));
      for (int64_t i = 0; i < d.cols; ++i) {
        w.keep[static_cast<size_t>(r * d.cols + order[static_cast<size_t>(i)])] = i < d.cols / 2;
      }
    }
    Result<PackedMatrix> m = PackFromQuantized(f, w.View(f));
    ASSERT_TRUE(m.ok());
    EXPECT_LE(m->bits_per_weight(), 0.205 * 16) << d.rows << " x " << d.cols;
  }
}

TEST(PackedMatrix, RefusesWhatItCannotHold) {
  PackedFormat f;
  f.rows = 16;
  f.cols = 64;
  f.bits = 4;
  f.group = 32;
  Rng rng(kSeed, RngStream::kTest);
  RandomPacked w = MakeRandomPacked(f, rng);
  w.q[5] = 8;
  EXPECT_EQ(PackFromQuantized(f, w.View(f)).status().code(), StatusCode::kInvalidArgument);
  w.q[5] = 0;
  w.scales[3] = 1e6f;  // beyond fp16
  EXPECT_EQ(PackFromQuantized(f, w.View(f)).status().code(), StatusCode::kInvalidArgument);
  w.scales[3] = 1;
  EXPECT_TRUE(PackFromQuantized(f, w.View(f)).ok());
  f.structure = Structure::kNM;
  f.nm_n = 1;
  f.nm_m = 4;
  EXPECT_EQ(PackFromQuantized(f, w.View(f)).status().code(), StatusCode::kInvalidArgument);
  for (auto change :
       {+[](PackedFormat& g) { g.bits = 7; }, +[](PackedFormat& g) { g.group = 48; },
        +[](PackedFormat& g) { g.rows = 0; }, +[](PackedFormat& g) { g.nm_m = 5; },
        +[](PackedFormat& g) { g.act_group = 16; }, +[](PackedFormat& g) { g.has_min = true; },
        +[](PackedFormat& g) { g.cols = int64_t{1} << 40; }}) {
    PackedFormat g = f;
    change(g);
    EXPECT_FALSE(CheckFormat(g).ok()) << Describe(g);
  }
}

// Whatever the bytes, FromBytes refuses them or yields a matrix that can be unpacked safely (the
// sanitizer build watches).
TEST(PackedMatrix, CorruptBlobsAreRefusedOrHarmless) {
  int refused = 0, harmless = 0;
  for (const PackedFormat& f : TestFormats(37, 200)) {
    SCOPED_TRACE(Describe(f));
    Rng rng(kSeed, RngStream::kTest, 3);
    const RandomPacked w = MakeRandomPacked(f, rng);
    Result<PackedMatrix> m = PackFromQuantized(f, w.View(f));
    ASSERT_TRUE(m.ok());
    const std::vector<std::byte> good(m->bytes().begin(), m->bytes().end());
    std::vector<float> out(37 * 200);
    for (int trial = 0; trial < 60; ++trial) {
      std::vector<std::byte> bad = good;
      const size_t at = trial < 40 ? rng.NextBelow(128) : rng.NextBelow(bad.size());
      bad[at] ^= std::byte(1 + rng.NextBelow(255));
      Result<PackedMatrix> r = PackedMatrix::FromBytes(bad, nullptr);
      if (!r.ok()) {
        ++refused;
        continue;
      }
      ++harmless;
      if (r->rows() * r->cols() <= 37 * 200) r->UnpackRows(0, r->rows(), out.data(), r->cols());
    }
    for (size_t keep : {size_t{0}, size_t{63}, size_t{64}, good.size() / 2, good.size() - 1}) {
      EXPECT_FALSE(PackedMatrix::FromBytes(std::span(good).first(keep), nullptr).ok());
    }
    std::vector<std::byte> longer = good;
    longer.resize(good.size() + 64);
    EXPECT_FALSE(PackedMatrix::FromBytes(longer, nullptr).ok());
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(harmless, 100);
}

}  // namespace
}  // namespace edgewise::kernels
