#include "cli/suggest.h"

#include <gtest/gtest.h>

namespace edgewise::cli {
namespace {

TEST(Suggest, FindsTheNearestName) {
  const std::vector<std::string> names = {"--learning-rate", "--lora-rank", "--seed"};
  EXPECT_EQ(Suggest("--learning-rat", names), "--learning-rate");
  EXPECT_EQ(Suggest("--lora-rnak", names), "--lora-rank");
  EXPECT_EQ(DidYouMean("--sed", names), "; did you mean --seed?");
}

TEST(Suggest, SaysNothingRatherThanNonsense) {
  EXPECT_EQ(Suggest("--frobnicate", {"--seed", "--data"}), "");
  EXPECT_EQ(Suggest("x", {"ab", "cd"}), "");
  EXPECT_EQ(Suggest(std::string(100000, 'a'), {"a"}), "");
  EXPECT_EQ(DidYouMean("abc", {}), "");
}

}  // namespace
}  // namespace edgewise::cli
