#include <gtest/gtest.h>

#include <numeric>

#include "compress/knapsack.h"
#include "compress/policy.h"
#include "io/json.h"
#include "testing/paths.h"

namespace edgewise::compress {
namespace {

Json Load(const std::string& name) {
  auto json = ReadJsonFile(edgewise::testing::GoldenDir() + "/compress/" + name);
  EXPECT_TRUE(json.ok()) << json.status().message();
  return json.ok() ? *json : Json();
}

void ExpectNear(const std::vector<double>& got, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << i;
}

TEST(PolicyGolden, RulesOfThePaperAndOfTheRelease) {
  EW_REQUIRE_DIR(edgewise::testing::GoldenDir());
  for (const Json& c : Load("luc_policy.json")["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const auto s = c["sensitivity"].get<std::vector<double>>();
    for (const auto& [base, bits] : c["bits"].items()) {
      EXPECT_EQ(PaperBits(s, std::stoi(base)), bits.get<std::vector<int>>());
    }
    for (const auto& [target, want] : c["inverse_min_max"].items()) {
      ExpectNear(PaperSparsity(s, std::stod(target)), want["p"].get<std::vector<double>>(), 1e-12);
    }
    for (const auto& [target, want] : c["as_printed"].items()) {
      ExpectNear(PaperLiteralSparsity(s, std::stod(target)), want.get<std::vector<double>>(),
                 1e-12);
    }
  }
}

// The authors' released table gives their own sparsities for P = 0.5.
TEST(PolicyGolden, ReleasedTable) {
  EW_REQUIRE_DIR(edgewise::testing::GoldenDir());
  const Json json = Load("edge_llm_released_mse.json");
  std::vector<double> scalar;
  for (const Json& row : json["mean_mse_first_7_samples"]) {
    const auto v = row.get<std::vector<double>>();
    scalar.push_back(std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size()));
  }
  const auto want = json["p_released"].get<std::vector<double>>();
  ASSERT_EQ(want.size(), scalar.size());
  // The table holds 8 significant digits.
  ExpectNear(PaperSparsity(scalar, 0.5), want, 1e-6);
}

// Eq. 1 with the layers {2, 29, 30, 31} above the mean gives the average bits of Tables 1 and 2.
TEST(PolicyGolden, AverageBitsOfThePaper) {
  std::vector<double> s(32, 0.1);
  for (size_t i : {2, 29, 30, 31}) s[i] = 5.0;
  for (int base : {3, 4, 5}) {
    const auto bits = PaperBits(s, base);
    EXPECT_DOUBLE_EQ(std::accumulate(bits.begin(), bits.end(), 0.0) / 32, base + 0.125);
  }
}

TEST(KnapsackGolden, OptimaByBruteForce) {
  EW_REQUIRE_DIR(edgewise::testing::GoldenDir());
  for (const Json& c : Load("knapsack.json")["cases"]) {
    std::vector<std::vector<KnapsackOption>> items;
    for (const Json& layer : c["layers"]) {
      auto& item = items.emplace_back();
      for (size_t o = 0; o < layer["cost"].size(); ++o) {
        item.push_back({layer["cost"][o], layer["loss"][o]});
      }
    }
    const auto got = SolveKnapsack(items, c["budget"]);
    ASSERT_EQ(got.ok(), c["feasible"].get<bool>());
    if (!got.ok()) continue;
    EXPECT_TRUE(got->exact);
    EXPECT_EQ(got->choice, c["choice"].get<std::vector<int>>());
    EXPECT_EQ(got->cost, c["cost"].get<int64_t>());
  }
}

}  // namespace
}  // namespace edgewise::compress
