#include "kernels/packed/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/packed/ref/packed_linear.h"
#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

constexpr uint64_t kSeed = 777;

std::unique_ptr<ExecContext> Context(Isa isa, int threads) {
  ExecOptions options;
  options.threads = threads;
  options.isa = &isa;
  return std::move(ExecContext::Create(options)).value();
}

std::vector<float> RandomMatrix(int64_t rows, int64_t cols, Rng& rng) {
  std::vector<float> x(static_cast<size_t>(rows * cols));
  for (float& v : x) v = static_cast<float>(rng.NextNormal());
  // An outlier and a row of zeros, as real activations have.
  x[x.size() / 2] = 40.0f;
  if (rows > 2) std::fill_n(x.begin() + cols, cols, 0.0f);
  return x;
}

std::vector<float> Row(const std::vector<float>& x, int64_t i, int64_t cols) {
  return {x.begin() + i * cols, x.begin() + (i + 1) * cols};
}

struct Case {
  int64_t m, rows, cols;
};
const Case kCases[] = {{1, 1, 1},    {1, 40, 200},  {2, 16, 32},   {3, 100, 70},
                       {6, 33, 576}, {7, 130, 600}, {13, 80, 544}, {29, 64, 1056}};

// The formats of a case: each appears in two or three of the cases.
std::vector<PackedFormat> FormatsOf(const Case& d) {
  std::vector<PackedFormat> formats;
  const auto turn = static_cast<size_t>(&d - kCases);
  for (const PackedFormat& f : TestFormats(d.rows, d.cols)) {
    if (turn % 3 == static_cast<size_t>(f.bits + f.group / 16 + f.nm_n) % 3) {
      formats.push_back(f);
    }
  }
  return formats;
}

PackedFormat WithShape(PackedFormat f, int64_t rows, int64_t cols) {
  f.rows = rows;
  f.cols = cols;
  return f;
}

class PackedIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, PackedIsa, ::testing::ValuesIn(SupportedIsas()), [](const auto& set) {
  std::string name(IsaName(set.param));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_P(PackedIsa, ForwardEqualsReferenceBitForBit) {
  const auto ctx = Context(GetParam(), 2);
  for (const Case& d : kCases) {
    for (const PackedFormat& f : FormatsOf(d)) {
      SCOPED_TRACE(Describe(f) + " m " + std::to_string(d.m));
      Rng rng(kSeed, RngStream::kTest, static_cast<uint64_t>(d.rows));
      const RandomPacked q = MakeRandomPacked(f, rng);
      Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      const std::vector<float> x = RandomMatrix(d.m, d.cols, rng);
      const std::vector<float> bias = RandomMatrix(1, d.rows, rng);
      std::vector<float> y(static_cast<size_t>(d.m * d.rows)), added(y.size(), 0.5f);
      std::vector<float> chained(y.size(), 0.5f);
      LinearForward(*ctx, d.m, x.data(), d.cols, w->Ref(), nullptr, y.data(), d.rows);
      LinearForward(*ctx, d.m, x.data(), d.cols, w->Ref(), bias.data(), added.data(), d.rows,
                    Accumulate::kAdd);
      LinearForward(*ctx, d.m, x.data(), d.cols, w->Ref(), nullptr, chained.data(), d.rows,
                    Accumulate::kAdd);
      const ref::Elements e = ref::Explode(*w);
      for (int64_t i = 0; i < d.m; ++i) {
        const ref::QuantizedRow xq = ref::Quantize(Row(x, i, d.cols), f.act_group);
        for (int64_t o = 0; o < d.rows; ++o) {
          const float want = ref::ForwardElement(f, e, o, xq);
          const auto at = static_cast<size_t>(i * d.rows + o);
          ASSERT_EQ(y[at], want) << "row " << i << " output " << o;
          ASSERT_EQ(added[at], 0.5f + (want + bias[static_cast<size_t>(o)]));
          ASSERT_EQ(chained[at], ref::ForwardElement(f, e, o, xq, 0.5f));
        }
      }
    }
  }
}

// One row of an N:M matrix is multiplied without expanding it, where its form allows that: the same
// bits as among other rows.
TEST_P(PackedIsa, OneRowOfEveryNmForm) {
  const auto ctx = Context(GetParam(), 2);
  Rng rng(kSeed, RngStream::kTest);
  const std::pair<int, int> patterns[] = {{1, 4}, {2, 4}, {3, 4},  {2, 8},  {4, 8},
                                          {5, 8}, {6, 8}, {4, 16}, {8, 16}, {12, 16}};
  const int groups[] = {0, 32, 64, 128};
  const int act_groups[] = {128, 0, 32, 64};
  int turn = 0;
  for (const auto& [n, m] : patterns) {
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      PackedFormat f;
      f.rows = 40;
      f.cols = turn % 3 == 0 ? 584 : turn % 3 == 1 ? 1024 : 200;
      f.bits = bits;
      f.structure = Structure::kNM;
      f.nm_n = n;
      f.nm_m = m;
      f.group = groups[turn % 4];
      f.act_group = act_groups[turn / 4 % 4];
      ++turn;
      SCOPED_TRACE(Describe(f));
      const RandomPacked q = MakeRandomPacked(f, rng);
      Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      const std::vector<float> x = RandomMatrix(2, f.cols, rng);
      std::vector<float> both(80), one(40);
      LinearForward(*ctx, 2, x.data(), f.cols, w->Ref(), nullptr, both.data(), 40);
      LinearForward(*ctx, 1, x.data(), f.cols, w->Ref(), nullptr, one.data(), 40);
      both.resize(40);
      EXPECT_EQ(one, both);
    }
  }
}

// The same of groups of 16 columns, of which a unit holds two.
TEST_P(PackedIsa, OneRowOfGroupsOf16) {
  const auto ctx = Context(GetParam(), 2);
  Rng rng(kSeed, RngStream::kTest);
  const int act_groups[] = {32, 0, 128, 512};
  int turn = 0;
  for (const ScaleType type : {ScaleType::kF16, ScaleType::kF32, ScaleType::kSuper}) {
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      PackedFormat f;
      f.rows = 40;
      f.cols = turn % 2 == 0 ? 1056 : 520;  // of the latter, rows are expanded first
      f.bits = bits;
      f.group = 16;
      f.scale_type = type;
      f.has_min = bits != 8 && turn % 3 == 0;
      f.act_group = act_groups[turn % 4];
      ++turn;
      SCOPED_TRACE(Describe(f));
      const RandomPacked q = MakeRandomPacked(f, rng);
      Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      const int64_t m = 8;
      const std::vector<float> x = RandomMatrix(m, f.cols, rng);
      std::vector<float> all(40 * m), one(40);
      LinearForward(*ctx, m, x.data(), f.cols, w->Ref(), nullptr, all.data(), 40);
      LinearForward(*ctx, 1, x.data() + 5 * f.cols, f.cols, w->Ref(), nullptr, one.data(), 40);
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + 5 * 40));
    }
  }
}

TEST_P(PackedIsa, IntegerBackwardEqualsReferenceBitForBit) {
  const auto ctx = Context(GetParam(), 2);
  LinearBackwardOptions options;
  options.mode = BackwardMode::kInteger;
  for (const Case& d : kCases) {
    for (const PackedFormat& f : FormatsOf(d)) {
      SCOPED_TRACE(Describe(f) + " m " + std::to_string(d.m));
      Rng rng(kSeed, RngStream::kTest, static_cast<uint64_t>(d.cols));
      const RandomPacked q = MakeRandomPacked(f, rng);
      Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      const std::vector<float> dy = RandomMatrix(d.m, d.rows, rng);
      std::vector<float> dx(static_cast<size_t>(d.m * d.cols), -1.0f);
      const std::vector<float> before = RandomMatrix(d.m, d.cols, rng);
      std::vector<float> sum = before;
      LinearBackwardInput(*ctx, d.m, dy.data(), d.rows, w->Ref(), dx.data(), d.cols,
                          Accumulate::kOverwrite, options);
      LinearBackwardInput(*ctx, d.m, dy.data(), d.rows, w->Ref(), sum.data(), d.cols,
                          Accumulate::kAdd, options);
      const ref::RowCodes codes = ref::Requantize(f, ref::Explode(*w));
      for (int64_t i = 0; i < d.m; ++i) {
        std::vector<float> row = Row(dy, i, d.rows);
        // Rows whose every block is absent have no scale to fold and no codes to meet.
        for (size_t o = 0; o < row.size(); ++o) row[o] *= codes.fold[o];
        const ref::QuantizedRow g = ref::Quantize(row, 128);
        for (int64_t c = 0; c < d.cols; ++c) {
          const auto at = static_cast<size_t>(i * d.cols + c);
          ASSERT_EQ(dx[at], ref::BackwardElement(f, codes, c, g, 0.0f))
              << "row " << i << " column " << c;
          ASSERT_EQ(sum[at], ref::BackwardElement(f, codes, c, g, before[at]))
              << "row " << i << " column " << c;
        }
      }
    }
  }
}

TEST_P(PackedIsa, ExactBackwardEqualsDenseWeights) {
  const auto ctx = Context(GetParam(), 2);
  for (const Case& d : kCases) {
    for (const PackedFormat& f : FormatsOf(d)) {
      SCOPED_TRACE(Describe(f) + " m " + std::to_string(d.m));
      Rng rng(kSeed, RngStream::kTest, static_cast<uint64_t>(d.cols));
      const RandomPacked q = MakeRandomPacked(f, rng);
      Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      std::vector<float> dense(static_cast<size_t>(d.rows * d.cols));
      w->UnpackRows(0, d.rows, dense.data(), d.cols);
      const std::vector<float> dy = RandomMatrix(d.m, d.rows, rng);
      std::vector<float> dx(static_cast<size_t>(d.m * d.cols), 1.0f);
      LinearBackwardInput(*ctx, d.m, dy.data(), d.rows, w->Ref(), dx.data(), d.cols,
                          Accumulate::kAdd);
      for (int64_t i = 0; i < d.m; ++i) {
        for (int64_t c = 0; c < d.cols; ++c) {
          double sum = 1, magnitude = 1;
          for (int64_t o = 0; o < d.rows; ++o) {
            const double term = static_cast<double>(dy[static_cast<size_t>(i * d.rows + o)]) *
                                dense[static_cast<size_t>(o * d.cols + c)];
            sum += term;
            magnitude += std::fabs(term);
          }
          // One rounding of 2^-24 of the sum so far per addition, two for the final one.
          const double bound = static_cast<double>(d.rows + 2) * 0x1p-24 * magnitude;
          ASSERT_NEAR(dx[static_cast<size_t>(i * d.cols + c)], sum, bound);
        }
      }
    }
  }
}

// Absent blocks are left out of the sums: the same bits as multiplying by their zeros.
TEST_P(PackedIsa, ExactBackwardLeavesOutAbsentBlocks) {
  const auto ctx = Context(GetParam(), 2);
  const int64_t rows = 330, cols = 620;
  for (const int block : {32, 64, 128, 256}) {
    for (const double density : {0.0, 0.1, 0.6}) {
      PackedFormat f;
      f.rows = rows;
      f.cols = cols;
      f.structure = Structure::kBlock;
      f.block_cols = block;
      f.group = block == 64 ? 0 : 32;
      f.bits = block == 128 ? 8 : 4;
      f.has_min = block == 256;
      SCOPED_TRACE(Describe(f) + " density " + std::to_string(density));
      Rng rng(kSeed, RngStream::kTest);
      Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng, density).View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      std::vector<float> dense(static_cast<size_t>(rows * cols));
      w->UnpackRows(0, rows, dense.data(), cols);
      for (const int64_t m : {1, 7, 16, 61}) {
        const std::vector<float> dy = RandomMatrix(m, rows, rng);
        const std::vector<float> before = RandomMatrix(m, cols, rng);
        for (const Accumulate acc : {Accumulate::kOverwrite, Accumulate::kAdd}) {
          std::vector<float> want = before, got = before;
          LinearBackwardInput(*ctx, m, dy.data(), rows, WeightRef::Dense(dense.data(), rows, cols),
                              want.data(), cols, acc);
          LinearBackwardInput(*ctx, m, dy.data(), rows, w->Ref(), got.data(), cols, acc);
          EXPECT_EQ(0, std::memcmp(got.data(), want.data(), got.size() * sizeof(float)));
        }
      }
    }
  }
}

TEST_P(PackedIsa, SameBitsWithAnyThreadsAndRows) {
  const Isa isa = GetParam();
  for (const PackedFormat& f : TestFormats(150, 620)) {
    if (f.bits != 4) continue;
    SCOPED_TRACE(Describe(f));
    Rng rng(kSeed, RngStream::kTest);
    const RandomPacked q = MakeRandomPacked(f, rng);
    Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
    ASSERT_TRUE(w.ok());
    const int64_t m = 70;
    const std::vector<float> x = RandomMatrix(m, 620, rng), dy = RandomMatrix(m, 150, rng);
    std::vector<float> y[3], dx[3];
    for (int t = 0; t < 3; ++t) {
      const auto ctx = Context(isa, t + 1);
      y[t].resize(static_cast<size_t>(m * 150));
      dx[t].resize(static_cast<size_t>(m * 620));
      LinearBackwardOptions options;
      options.mode = BackwardMode::kInteger;
      options.stochastic = true;
      options.seed = 5;
      LinearForward(*ctx, m, x.data(), 620, w->Ref(), nullptr, y[t].data(), 150);
      LinearBackwardInput(*ctx, m, dy.data(), 150, w->Ref(), dx[t].data(), 620,
                          Accumulate::kOverwrite, options);
      EXPECT_EQ(y[t], y[0]);
      EXPECT_EQ(dx[t], dx[0]);
      // A row by itself, and a range of outputs.
      std::vector<float> one(150), some(44);
      LinearForward(*ctx, 1, x.data() + 33 * 620, 620, w->Ref(), nullptr, one.data(), 150);
      EXPECT_TRUE(std::equal(one.begin(), one.end(), y[0].begin() + 33 * 150));
      PackedForward(*ctx, 1, x.data() + 33 * 620, 620, *w, {96, 140}, nullptr, some.data(), 44,
                    Accumulate::kOverwrite);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), one.begin() + 96));
    }
  }
}

// More rows and panels than one task takes: every task begins where a group of rows does.
TEST_P(PackedIsa, RowsBeyondOneTaskAreTheSameBits) {
  const int64_t rows = 1552, cols = 128, m = 530;
  for (const PackedFormat& f : TestFormats(rows, cols)) {
    if (f.bits != 4 || f.group == 0 || f.structure == Structure::kBlock) continue;
    SCOPED_TRACE(Describe(f));
    Rng rng(kSeed, RngStream::kTest);
    Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
    ASSERT_TRUE(w.ok());
    const auto ctx = Context(GetParam(), 2);
    const std::vector<float> x = RandomMatrix(m, cols, rng);
    std::vector<float> all(static_cast<size_t>(m * rows)), some(static_cast<size_t>(30 * rows));
    LinearForward(*ctx, m, x.data(), cols, w->Ref(), nullptr, all.data(), rows);
    for (const int64_t at : {int64_t{0}, m - 30}) {
      LinearForward(*ctx, 30, x.data() + at * cols, cols, w->Ref(), nullptr, some.data(), rows);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + at * rows)) << at;
    }
    // A gradient with as many panels.
    Result<PackedMatrix> wide = PackFromQuantized(
        WithShape(f, cols, rows),
        MakeRandomPacked(WithShape(f, cols, rows), rng).View(WithShape(f, cols, rows)));
    ASSERT_TRUE(wide.ok());
    LinearBackwardOptions options;
    options.mode = BackwardMode::kInteger;
    LinearBackwardInput(*ctx, m, x.data(), cols, wide->Ref(), all.data(), rows,
                        Accumulate::kOverwrite, options);
    for (const int64_t at : {int64_t{0}, m - 30}) {
      LinearBackwardInput(*ctx, 30, x.data() + at * cols, cols, wide->Ref(), some.data(), rows,
                          Accumulate::kOverwrite, options);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + at * rows)) << at;
    }
  }
}

// Many rows take other ways through memory than one: panels kept for all tasks, sums in dX or
// beside it.
TEST_P(PackedIsa, IntegerBackwardOfManyRowsIsThatOfEach) {
  const Isa isa = GetParam();
  for (const auto& [rows, cols] : {std::pair{150, 620}, {530, 1024}}) {
    for (const PackedFormat& f : TestFormats(rows, cols)) {
      if (f.bits != 4) continue;
      SCOPED_TRACE(Describe(f));
      Rng rng(kSeed, RngStream::kTest);
      Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
      ASSERT_TRUE(w.ok());
      const int64_t m = 180, wide = cols + 16;
      const std::vector<float> dy = RandomMatrix(m, rows, rng), before = RandomMatrix(m, wide, rng);
      LinearBackwardOptions options;
      options.mode = BackwardMode::kInteger;
      options.stochastic = true;
      std::vector<float> alone(static_cast<size_t>(cols)), all(static_cast<size_t>(m * cols)),
          sum = before, sum_alone(before.begin(), before.begin() + cols);
      const auto ctx = Context(isa, 2);
      LinearBackwardInput(*ctx, m, dy.data(), rows, w->Ref(), all.data(), cols,
                          Accumulate::kOverwrite, options);
      LinearBackwardInput(*ctx, m, dy.data(), rows, w->Ref(), sum.data(), wide, Accumulate::kAdd,
                          options);
      LinearBackwardInput(*ctx, 1, dy.data(), rows, w->Ref(), alone.data(), cols,
                          Accumulate::kOverwrite, options);
      LinearBackwardInput(*ctx, 1, dy.data(), rows, w->Ref(), sum_alone.data(), cols,
                          Accumulate::kAdd, options);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin()));
      EXPECT_TRUE(std::equal(sum_alone.begin(), sum_alone.end(), sum.begin()));
      EXPECT_TRUE(std::equal(before.begin() + cols, before.begin() + wide, sum.begin() + cols));
      // Noise is drawn by the number of the row; without it the last row may be compared, too.
      options.stochastic = false;
      LinearBackwardInput(*ctx, m, dy.data(), rows, w->Ref(), all.data(), cols,
                          Accumulate::kOverwrite, options);
      LinearBackwardInput(*ctx, 1, dy.data() + (m - 1) * rows, rows, w->Ref(), alone.data(), cols,
                          Accumulate::kOverwrite, options);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.end() - cols));
    }
  }
}

TEST_P(PackedIsa, NonFiniteActivationsSpoilOnlyTheirRow) {
  const auto ctx = Context(GetParam(), 1);
  PackedFormat f;
  f.rows = 40;
  f.cols = 256;
  f.group = 64;
  Rng rng(kSeed, RngStream::kTest);
  Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
  ASSERT_TRUE(w.ok());
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    std::vector<float> x = RandomMatrix(3, 256, rng), y(120);
    x[2 * 256 + 100] = bad;
    LinearForward(*ctx, 3, x.data(), 256, w->Ref(), nullptr, y.data(), 40);
    for (int64_t i = 0; i < 120; ++i) EXPECT_EQ(std::isfinite(y[static_cast<size_t>(i)]), i < 80);
  }
}

// Stochastic rounding is unbiased: the mean over many substreams approaches the exact gradient of
// the integer weights, where nearest rounding stays where it is.
TEST(PackedBackward, StochasticRoundingIsUnbiased) {
  const auto ctx = Context(SupportedIsas().back(), 1);
  PackedFormat f;
  f.rows = 64;
  f.cols = 64;
  f.bits = 4;
  Rng rng(kSeed, RngStream::kTest);
  Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
  ASSERT_TRUE(w.ok());
  const std::vector<float> dy = RandomMatrix(1, 64, rng);
  std::vector<float> exact(64), dx(64);
  LinearBackwardInput(*ctx, 1, dy.data(), 64, w->Ref(), exact.data(), 64);
  LinearBackwardOptions options;
  options.mode = BackwardMode::kInteger;
  LinearBackwardInput(*ctx, 1, dy.data(), 64, w->Ref(), dx.data(), 64, Accumulate::kOverwrite,
                      options);
  double nearest = 0, mean_error = 0;
  for (int c = 0; c < 64; ++c) nearest += std::pow(dx[c] - exact[c], 2);
  options.stochastic = true;
  std::vector<double> mean(64);
  constexpr int kTrials = 400;
  for (int t = 0; t < kTrials; ++t) {
    options.substream = static_cast<uint64_t>(t);
    LinearBackwardInput(*ctx, 1, dy.data(), 64, w->Ref(), dx.data(), 64, Accumulate::kOverwrite,
                        options);
    for (size_t c = 0; c < 64; ++c) mean[c] += dx[c] / kTrials;
  }
  for (size_t c = 0; c < 64; ++c) mean_error += std::pow(mean[c] - exact[c], 2);
  // The variance of stochastic rounding is at most three times that of nearest; its mean over 400
  // trials has 1/400 of it.
  EXPECT_LT(mean_error, nearest * 3 / kTrials * 4);
}

TEST(PackedGather, RowsOfAnEmbedding) {
  const auto ctx = Context(Isa::kGeneric, 2);
  for (const PackedFormat& f : TestFormats(70, 100)) {
    SCOPED_TRACE(Describe(f));
    Rng rng(kSeed, RngStream::kTest);
    const RandomPacked q = MakeRandomPacked(f, rng);
    Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
    ASSERT_TRUE(w.ok());
    const std::vector<int32_t> ids = {69, 0, 17, 17, 64};
    std::vector<float> out(500);
    PackedGatherRows(*ctx, *w, 5, ids.data(), 2.0f, out.data());
    for (size_t t = 0; t < 5; ++t) {
      for (int64_t c = 0; c < 100; ++c) {
        ASSERT_EQ(out[t * 100 + static_cast<size_t>(c)], 2 * ExpectedValue(f, q, ids[t], c));
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels
