#include "compress/knapsack.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace edgewise::compress {
namespace {

using Items = std::vector<std::vector<KnapsackOption>>;

double BruteForce(const Items& items, int64_t budget, size_t at = 0) {
  if (at == items.size()) return budget >= 0 ? 0.0 : INFINITY;
  double best = INFINITY;
  for (const KnapsackOption& o : items[at]) {
    if (o.cost > budget) continue;
    best = std::min(best, o.loss + BruteForce(items, budget - o.cost, at + 1));
  }
  return best;
}

Items RandomItems(Rng& rng, int items, int options) {
  Items out(static_cast<size_t>(items));
  for (auto& item : out) {
    for (int o = 0; o < options; ++o) {
      item.push_back({static_cast<int64_t>(rng.NextBelow(1000)), rng.NextDouble()});
    }
  }
  return out;
}

TEST(Knapsack, EqualsBruteForce) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed, RngStream::kTest);
    const Items items = RandomItems(rng, 6, 5);
    const auto budget = static_cast<int64_t>(rng.NextBelow(5000));
    const double best = BruteForce(items, budget);
    const auto got = SolveKnapsack(items, budget);
    ASSERT_EQ(got.ok(), std::isfinite(best));
    if (!got.ok()) continue;
    EXPECT_TRUE(got->exact);
    EXPECT_NEAR(got->loss, best, 1e-12);
    EXPECT_LE(got->cost, budget);
  }
}

TEST(Knapsack, ThinnedSearchKeepsAProvenGap) {
  Rng rng(7, RngStream::kTest);
  const Items items = RandomItems(rng, 60, 12);
  const auto exact = SolveKnapsack(items, 15000);
  const auto thin = SolveKnapsack(items, 15000, /*max_states=*/8);
  ASSERT_TRUE(exact.ok() && thin.ok());
  EXPECT_TRUE(exact->exact);
  EXPECT_LE(thin->lower_bound, exact->loss + 1e-12);
  EXPECT_GE(thin->loss, exact->loss - 1e-12);
  EXPECT_LE(thin->cost, 15000);
}

TEST(Knapsack, SaysWhatIsTooDear) {
  const Items items = {{{10, 1.0}}, {{20, 1.0}}};
  const auto got = SolveKnapsack(items, 29);
  ASSERT_FALSE(got.ok());
  EXPECT_NE(got.status().message().find("30"), std::string::npos);
}

}  // namespace
}  // namespace edgewise::compress
