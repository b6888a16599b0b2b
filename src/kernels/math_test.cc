#include <limits>

#include "kernels/kernel_table.h"
#include "kernels/kernel_test_util.h"
#include "kernels/peaks.h"

namespace edgewise::kernels {
namespace {

class VectorMath : public EveryIsa {
 protected:
  // Every 2^32 / n-th float, in bit patterns, which takes in all exponents and both signs.
  static std::vector<float> SweepFloats() {
    std::vector<float> x;
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 16381) {
      const float f = std::bit_cast<float>(static_cast<uint32_t>(bits));
      if (std::isfinite(f)) x.push_back(f);
    }
    return x;
  }
};
EW_EVERY_ISA(VectorMath);

TEST_P(VectorMath, ExpIsWithinItsError) {
  auto x = SweepFloats();
  for (int i = -90000; i <= 90000; ++i) x.push_back(static_cast<float>(i) * 0.001f);
  std::vector<float> y(x.size());
  TableFor(GetParam()).exp(static_cast<int64_t>(x.size()), x.data(), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double e = std::exp(static_cast<double>(x[i]));
    if (e > std::numeric_limits<float>::max()) {
      ASSERT_TRUE(std::isinf(y[i]) || y[i] > 3.40282e38f) << x[i];
    } else if (x[i] < -86.9f) {
      ASSERT_EQ(y[i], 0) << x[i];
    } else {
      ASSERT_NEAR(y[i], e, 2.5 * kUnit * e) << x[i];
    }
  }
}

TEST_P(VectorMath, TanhIsWithinItsError) {
  const auto x = SweepFloats();
  std::vector<float> y(x.size());
  TableFor(GetParam()).tanh(static_cast<int64_t>(x.size()), x.data(), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double e = std::tanh(static_cast<double>(x[i]));
    // Subnormal inputs lose what is below the smallest float.
    ASSERT_NEAR(y[i], e, 4 * kUnit * std::fabs(e) + std::numeric_limits<float>::denorm_min())
        << x[i];
  }
}

TEST_P(VectorMath, SpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const float x[] = {kInf, -kInf, kNaN, 0.0f, 89.0f, -200.0f, 3e38f};
  float e[7], t[7];
  TableFor(GetParam()).exp(7, x, e);
  TableFor(GetParam()).tanh(7, x, t);
  EXPECT_EQ(e[0], kInf);
  EXPECT_EQ(e[1], 0);
  EXPECT_TRUE(std::isnan(e[2]));
  EXPECT_EQ(e[3], 1);
  EXPECT_EQ(e[4], kInf);
  EXPECT_EQ(e[5], 0);
  EXPECT_EQ(e[6], kInf);
  EXPECT_EQ(t[0], 1);
  EXPECT_EQ(t[1], -1);
  EXPECT_TRUE(std::isnan(t[2]));
  EXPECT_EQ(t[3], 0);
  EXPECT_EQ(t[6], 1);
}

TEST_P(VectorMath, PeaksAreMeasured) {
  const Peaks peaks = MeasurePeaks(*ctx);
  EXPECT_GT(peaks.fp32_gflops, 0);
  EXPECT_GT(peaks.read_gbps, 0);
  const Isa isa = GetParam();
  const bool dots = isa == Isa::kAvxVnni || isa == Isa::kAvx512Vnni || isa == Isa::kAvx512Vbmi2 ||
                    isa == Isa::kNeonDot || isa == Isa::kNeonI8mm;
  EXPECT_EQ(peaks.int8_gops > 0, dots);
}

}  // namespace
}  // namespace edgewise::kernels
