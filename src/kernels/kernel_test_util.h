// What the tests of the kernels share: one context per instruction set that can run here, seeded
// random numbers, and comparisons with a bound per element.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "exec/context.h"

namespace edgewise::kernels {

inline constexpr double kUnit = 0x1.0p-24;  // half the distance from 1 to the next float

inline std::unique_ptr<ExecContext> MakeContext(Isa isa, int threads = 2) {
  ExecOptions options;
  options.threads = threads;
  options.isa = &isa;
  auto ctx = ExecContext::Create(options);
  EXPECT_TRUE(ctx.ok());
  return std::move(ctx).value();
}

// Suites over these are instantiated with testing::ValuesIn(SupportedIsas()).
class EveryIsa : public testing::TestWithParam<Isa> {
 protected:
  EveryIsa() : ctx(MakeContext(GetParam())) { RecordProperty("seed", std::to_string(kSeed)); }
  static constexpr uint64_t kSeed = 20260101;
  Rng rng{kSeed, RngStream::kTest};
  std::unique_ptr<ExecContext> ctx;

  std::vector<float> Normal(int64_t n, double scale = 1.0) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = static_cast<float>(scale * rng.NextNormal());
    return v;
  }
};

inline std::string IsaTestName(const testing::TestParamInfo<Isa>& info) {
  std::string name(IsaName(info.param));
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}
#define EW_EVERY_ISA(suite)                                                            \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(::edgewise::SupportedIsas()), \
                           ::edgewise::kernels::IsaTestName)

inline std::vector<double> Double(const std::vector<float>& v) { return {v.begin(), v.end()}; }
inline std::vector<double> Abs(const std::vector<float>& v) {
  std::vector<double> out;
  for (float x : v) out.push_back(std::fabs(x));
  return out;
}

// |actual - expected| <= bound element by element; reports the worst.
inline void ExpectWithin(const std::vector<float>& actual, const std::vector<double>& expected,
                         const std::vector<double>& bound, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  ASSERT_EQ(actual.size(), bound.size()) << what;
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::fabs(actual[i] - expected[i]);
    const double ratio = error == 0 ? 0 : error / bound[i];
    if (!(ratio <= worst)) worst = ratio, at = i;
    if (std::isnan(ratio)) break;
  }
  if (!(worst <= 1)) {
    ADD_FAILURE() << what << ": element " << at << " is " << actual[at] << ", expected "
                  << expected[at] << " +- " << bound[at] << " (" << worst << " times the bound)";
  }
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace edgewise::kernels
