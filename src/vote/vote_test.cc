#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "vote/calibration.h"
#include "vote/rules.h"

namespace edgewise::vote {
namespace {

TEST(Rules, OnHandMadeProbabilities) {
  // Two exits, three tokens.
  const std::vector<double> p = {0.5, 0.3, 0.2, 0.1, 0.8, 0.1};
  std::vector<double> out(3);
  VoteConfig c;
  c.rule = Rule::kMaxProb;
  EXPECT_EQ(Combine(c, p, 2, out), -1);
  EXPECT_NEAR(out[0], 0.5 / 1.5, 1e-15);
  EXPECT_NEAR(out[1], 0.8 / 1.5, 1e-15);
  c.rule = Rule::kConfident;
  EXPECT_EQ(Combine(c, p, 2, out), 1);
  EXPECT_EQ(out[1], 0.8);
  c.rule = Rule::kWeighted;
  c.weights = {0.25, 0.75};
  Combine(c, p, 2, out);
  EXPECT_NEAR(out[0], 0.2, 1e-15);
  const Confidence conf = ConfidenceOf(out);
  EXPECT_EQ(conf.top, 1);
  EXPECT_NEAR(conf.margin, 0.675 - 0.2, 1e-12);
}

TEST(Rules, NamesRoundTrip) {
  for (const char* name : {"max-prob", "mean", "weighted", "confident", "single:2"}) {
    const auto rule = ParseRule(name, 3);
    ASSERT_TRUE(rule.ok());
    EXPECT_EQ(RuleName(*rule), name);
  }
  for (const char* name : {"single:3", "single:-1", "single:", "best", ""}) {
    EXPECT_FALSE(ParseRule(name, 3).ok()) << name;
  }
}

// Targets drawn from softmax(logits / 2): the fit must find temperature 2.
TEST(Calibration, RecoversTheTemperature) {
  Rng rng(11, RngStream::kTest);
  TemperatureFit fit(1);
  std::vector<float> logits(20);
  std::vector<double> p(20);
  for (int t = 0; t < 4000; ++t) {
    for (float& x : logits) x = static_cast<float>(4 * rng.NextNormal());
    Softmax(std::span<const float>(logits), 2.0, p);
    double u = rng.NextDouble();
    int32_t target = 0;
    while (target < 19 && u >= p[static_cast<size_t>(target)])
      u -= p[static_cast<size_t>(target++)];
    fit.Add(0, logits, target);
  }
  EXPECT_NEAR(fit.Best()[0], 2.0, 0.15);
}

TEST(Calibration, WeightsFavourTheBetterExitAndNeverLose) {
  Rng rng(12, RngStream::kTest);
  std::vector<double> p;
  for (int t = 0; t < 1000; ++t) {
    p.push_back(0.1 + 0.1 * rng.NextDouble());
    p.push_back(0.3 + 0.6 * rng.NextDouble());
  }
  const auto w = FitWeights(p, 2);
  EXPECT_GT(w[1], 0.95);
  EXPECT_NEAR(w[0] + w[1], 1.0, 1e-12);
}

TEST(Calibration, BootstrapCoversTheMean) {
  std::vector<double> d;
  Rng rng(13, RngStream::kTest);
  for (int i = 0; i < 400; ++i) d.push_back(0.5 + rng.NextNormal());
  const Interval ci = BootstrapMean(d, 1);
  EXPECT_LT(ci.low, ci.mean);
  EXPECT_GT(ci.high, ci.mean);
  EXPECT_NEAR(ci.high - ci.low, 2 * 1.96 / 20, 0.06);
}

}  // namespace
}  // namespace edgewise::vote
