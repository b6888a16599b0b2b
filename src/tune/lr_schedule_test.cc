#include "tune/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace edgewise::tune {
namespace {

LrSchedule Make(LrOptions o, int64_t steps) {
  Result<LrSchedule> s = LrSchedule::Create(o, steps);
  EXPECT_TRUE(s.ok()) << s.status().message();
  return *s;
}

TEST(LrSchedule, CosineIsTheFormula) {
  const LrSchedule s = Make({.lr = 1e-3, .warmup_steps = 5}, 40);
  for (int i = 0; i < 40; ++i) {
    const double want =
        i < 5 ? 1e-3 * (i + 1) / 5 : 1e-3 * 0.5 * (1 + std::cos(std::numbers::pi * (i - 5) / 35.0));
    EXPECT_DOUBLE_EQ(s.At(i), want) << i;
  }
}

TEST(LrSchedule, LinearEndsAtTheMinimum) {
  const LrSchedule s =
      Make({.kind = LrKind::kLinear, .lr = 1.0, .min_lr = 0.2, .warmup_steps = 2}, 12);
  EXPECT_DOUBLE_EQ(s.At(0), 0.5);
  EXPECT_DOUBLE_EQ(s.At(1), 1.0);
  EXPECT_DOUBLE_EQ(s.At(2), 1.0);
  EXPECT_DOUBLE_EQ(s.At(7), 0.6);
  EXPECT_DOUBLE_EQ(s.At(12), 0.2);
  EXPECT_DOUBLE_EQ(s.At(99), 0.2);
}

TEST(LrSchedule, RatioRoundsUpAndConstantStays) {
  const LrSchedule s = Make({.kind = LrKind::kConstant, .lr = 3.0, .warmup_ratio = 0.03}, 40);
  EXPECT_EQ(s.warmup_steps(), 2);
  EXPECT_DOUBLE_EQ(s.At(0), 1.5);
  EXPECT_DOUBLE_EQ(s.At(39), 3.0);
}

TEST(LrSchedule, WarmupMayCoverTheWholeRun) {
  const LrSchedule s = Make({.lr = 1.0, .warmup_steps = 10}, 10);
  EXPECT_DOUBLE_EQ(s.At(9), 1.0);
  EXPECT_TRUE(std::isfinite(s.At(10)));
}

TEST(LrSchedule, BadOptionsAreErrors) {
  EXPECT_FALSE(LrSchedule::Create({}, 0).ok());
  EXPECT_FALSE(LrSchedule::Create({.lr = -1}, 5).ok());
  EXPECT_FALSE(LrSchedule::Create({.lr = std::numeric_limits<double>::quiet_NaN()}, 5).ok());
  EXPECT_FALSE(LrSchedule::Create({.lr = 1, .min_lr = 2}, 5).ok());
  EXPECT_FALSE(LrSchedule::Create({.warmup_ratio = 1.5}, 5).ok());
  EXPECT_FALSE(ParseLrKind("cosin").ok());
  EXPECT_EQ(*ParseLrKind("linear"), LrKind::kLinear);
}

}  // namespace
}  // namespace edgewise::tune
