#include <gtest/gtest.h>

#include <cmath>

#include "kernels/linear.h"
#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

// Against the unpacked weights in double: more rows than are unpacked at a time, ragged, any
// format, with and without bias, overwriting and adding.
TEST(LinearForwardExact, IsTheProductWithTheUnpackedWeights) {
  constexpr int64_t kRows = 600, kCols = 70, kTokens = 5;
  ExecOptions two, one;
  two.threads = 2;
  one.threads = 1;
  const auto ctx = std::move(ExecContext::Create(two)).value();
  const auto single = std::move(ExecContext::Create(one)).value();
  for (const PackedFormat& f : TestFormats(kRows, kCols)) {
    SCOPED_TRACE(Describe(f));
    Rng rng(11, RngStream::kTest);
    const RandomPacked q = MakeRandomPacked(f, rng);
    Result<PackedMatrix> w = PackFromQuantized(f, q.View(f));
    ASSERT_TRUE(w.ok());
    std::vector<float> x(kTokens * kCols), bias(kRows), plain(kCols * kRows);
    for (float& v : x) v = static_cast<float>(rng.NextNormal());
    for (float& v : bias) v = static_cast<float>(rng.NextNormal());
    w->UnpackRows(0, kRows, plain.data(), kCols);
    for (const bool add : {false, true}) {
      const Accumulate acc = add ? Accumulate::kAdd : Accumulate::kOverwrite;
      const float* b = add ? nullptr : bias.data();
      std::vector<float> y(kTokens * kRows, 1.0f), same = y;
      LinearForwardExact(*ctx, kTokens, x.data(), kCols, w->Ref(), b, y.data(), kRows, acc);
      LinearForwardExact(*single, kTokens, x.data(), kCols, w->Ref(), b, same.data(), kRows, acc);
      EXPECT_EQ(y, same);
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t r = 0; r < kRows; ++r) {
          const double start = add ? 1.0 : bias[static_cast<size_t>(r)];
          double sum = start, size = std::fabs(start);
          for (int64_t c = 0; c < kCols; ++c) {
            const double term = static_cast<double>(x[static_cast<size_t>(t * kCols + c)]) *
                                plain[static_cast<size_t>(r * kCols + c)];
            sum += term;
            size += std::fabs(term);
          }
          // One rounding per term of the sum, and one of the start.
          ASSERT_NEAR(y[static_cast<size_t>(t * kRows + r)], sum, size * (kCols + 1) * 0x1.0p-24);
        }
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels
