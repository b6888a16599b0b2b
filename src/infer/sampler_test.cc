#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace edgewise::infer {
namespace {

SamplingOptions Plain(double temperature) {
  return {.temperature = temperature, .top_k = 0, .top_p = 1, .min_p = 0};
}

std::map<int32_t, int> Draw(SamplingOptions options, std::vector<float> logits, int n,
                            std::vector<bool> allowed = {}, std::vector<int32_t> history = {}) {
  Sampler sampler(options, std::move(allowed));
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) {
    Result<int32_t> id = sampler.Sample(logits, history);
    EXPECT_TRUE(id.ok());
    if (id.ok()) ++counts[*id];
  }
  return counts;
}

TEST(Sampler, GreedyTakesTheLargestAndTheSmallerIdOfEqualOnes) {
  EXPECT_EQ(Draw(Plain(0), {1, 3, 2, 3}, 5), (std::map<int32_t, int>{{1, 5}}));
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  const std::vector<float> logits = {std::log(1.f), std::log(2.f), std::log(5.f)};
  const int n = 20000;
  auto counts = Draw(Plain(1), logits, n);
  const double expected[] = {1.0 / 8, 2.0 / 8, 5.0 / 8};
  for (int i = 0; i < 3; ++i) {
    // Five standard deviations of a binomial count.
    const double sd = std::sqrt(n * expected[i] * (1 - expected[i]));
    EXPECT_NEAR(counts[i], n * expected[i], 5 * sd) << i;
  }
  SamplingOptions cold = Plain(0.5);  // squares the probabilities: 1, 4, 25
  counts = Draw(cold, logits, n);
  EXPECT_NEAR(counts[2], n * 25.0 / 30, 5 * std::sqrt(n * 25.0 / 30 * 5 / 30));
}

TEST(Sampler, SameSeedSameDrawsOtherSeedOthers) {
  const std::vector<float> logits(50, 0.f);
  auto sequence = [&](uint64_t seed) {
    SamplingOptions options = Plain(1);
    options.seed = seed;
    Sampler sampler(options, {});
    std::vector<int32_t> ids;
    for (int i = 0; i < 30; ++i) ids.push_back(*sampler.Sample(logits, {}));
    return ids;
  };
  EXPECT_EQ(sequence(7), sequence(7));
  EXPECT_NE(sequence(7), sequence(8));
}

TEST(Sampler, TopKTopPAndMinPKeepWhatTheySay) {
  const std::vector<float> logits = {std::log(.5f), std::log(.25f), std::log(.15f), std::log(.1f)};
  SamplingOptions k = Plain(1);
  k.top_k = 2;
  EXPECT_EQ(Draw(k, logits, 300).size(), 2u);
  SamplingOptions p = Plain(1);
  p.top_p = 0.8;  // .5 + .25 < .8, so the third is needed
  EXPECT_EQ(Draw(p, logits, 300).size(), 3u);
  SamplingOptions m = Plain(1);
  m.min_p = 0.4;  // .25 >= .4 * .5, .15 is not
  EXPECT_EQ(Draw(m, logits, 300).size(), 2u);
  SamplingOptions one = Plain(5);
  one.top_p = 1e-9;
  EXPECT_EQ(Draw(one, logits, 50), (std::map<int32_t, int>{{0, 50}}));
}

TEST(Sampler, NeverDrawsAnIdWithoutAToken) {
  const auto counts = Draw(Plain(1), {0, 0, 9, 0, 9}, 200, {true, true, false, true});
  EXPECT_EQ(counts.count(2), 0u);
  EXPECT_EQ(counts.count(4), 0u);
  EXPECT_EQ(Draw(Plain(0), {0, 1, 9}, 1, {true, true, false}), (std::map<int32_t, int>{{1, 1}}));
}

TEST(Sampler, RepetitionPenaltyLooksAtTheLastN) {
  SamplingOptions options = Plain(0);
  options.repetition_penalty = 2;
  EXPECT_EQ(Draw(options, {4, 3, -1}, 1, {}, {0}), (std::map<int32_t, int>{{1, 1}}));
  options.repetition_last_n = 1;
  EXPECT_EQ(Draw(options, {4, 3, -1}, 1, {}, {0, 2}), (std::map<int32_t, int>{{0, 1}}));
  // Negative logits become more negative: -1 -> -2 < -1.5.
  EXPECT_EQ(Draw(options, {-1, -1.5f}, 1, {}, {0}), (std::map<int32_t, int>{{1, 1}}));
}

TEST(Sampler, NotANumberIsSkippedAndAllOfThemAnError) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Draw(Plain(0), {nan, 1, nan}, 1), (std::map<int32_t, int>{{1, 1}}));
  EXPECT_EQ(Draw(Plain(1), {0, inf, 0}, 5), (std::map<int32_t, int>{{1, 5}}));
  Sampler sampler(Plain(1), {});
  EXPECT_FALSE(sampler.Sample(std::vector<float>{nan, nan}, {}).ok());
}

TEST(Sampler, RangesAreChecked) {
  EXPECT_TRUE(ValidateSampling({}).ok());
  EXPECT_FALSE(ValidateSampling({.temperature = -1}).ok());
  EXPECT_FALSE(ValidateSampling({.temperature = std::nan("")}).ok());
  EXPECT_FALSE(ValidateSampling({.top_k = -1}).ok());
  EXPECT_FALSE(ValidateSampling({.top_p = 0}).ok());
  EXPECT_FALSE(ValidateSampling({.min_p = 2}).ok());
  EXPECT_FALSE(ValidateSampling({.repetition_penalty = 0}).ok());
}

}  // namespace
}  // namespace edgewise::infer
