#include <gtest/gtest.h>

#include "kernels/linear.h"
#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

// The same bits as of rows that lie in memory, for packed and dense weights, many rows and few.
TEST(LinearForwardMade, IsTheProductOfTheRowsThatAreMade) {
  constexpr int64_t kCols = 600, kRows = 80;
  for (const int threads : {1, 2, 3}) {
    ExecOptions options;
    options.threads = threads;
    const auto ctx = std::move(ExecContext::Create(options)).value();
    for (const int act_group : {0, 128}) {
      PackedFormat f;
      f.rows = kRows;
      f.cols = kCols;
      f.act_group = act_group;
      Rng rng(12, RngStream::kTest);
      Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
      ASSERT_TRUE(w.ok()) << w.status().message();
      std::vector<float> plain(kRows * kCols);
      w->UnpackRows(0, kRows, plain.data(), kCols);
      const WeightRef dense = WeightRef::Dense(plain.data(), kRows, kCols);
      for (const int64_t m : {1, 3, 70}) {
        std::vector<float> x(static_cast<size_t>(m * kCols)), spare(x.size());
        for (float& v : x) v = static_cast<float>(rng.NextNormal());
        const auto make = [&](int64_t begin, int64_t end, float* out) {
          std::copy(x.begin() + begin * kCols, x.begin() + end * kCols, out);
        };
        for (const auto& [first, second] :
             {std::pair{w->Ref(), w->Ref()}, {w->Ref(), dense}, {dense, dense}}) {
          std::vector<float> want[2], got[2];
          for (int i = 0; i < 2; ++i) want[i].assign(static_cast<size_t>(m * kRows), 0.25f);
          for (int i = 0; i < 2; ++i) got[i] = want[i];
          const auto targets = [&, f0 = first, f1 = second](std::vector<float>(&y)[2]) {
            return std::array<LinearTarget, 2>{
                LinearTarget{f0, nullptr, y[0].data(), kRows, Accumulate::kOverwrite},
                LinearTarget{f1, nullptr, y[1].data(), kRows, Accumulate::kAdd}};
          };
          LinearForwardMany(*ctx, m, x.data(), kCols, targets(want));
          LinearForwardMade(*ctx, m, make, spare.data(), targets(got));
          EXPECT_EQ(got[0], want[0]);
          EXPECT_EQ(got[1], want[1]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels
