#include "cli/usage_error.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace edgewise::cli {
namespace {

// What the program says when `argument` is given to an option with this check.
std::string Say(const CLI::Validator& check, const char* argument) {
  CLI::App app("", "x");
  int value = 0;
  app.add_option("--ctx", value)->check(check);
  const char* argv[] = {"x", "--ctx", argument};
  try {
    app.parse(3, argv);
  } catch (const CLI::Error& error) {
    return UsageErrorText(error.what());
  }
  return "";
}

TEST(UsageError, SaysWhatAValueMustBe) {
  EXPECT_EQ(Say(CLI::NonNegativeNumber, "lots"), "--ctx: 'lots' is not a number");
  EXPECT_EQ(Say(CLI::NonNegativeNumber, "-1"), "--ctx: -1 is too small: it must not be negative");
  EXPECT_EQ(Say(CLI::PositiveNumber, "0"), "--ctx: 0 is too small: it must be above 0");
  EXPECT_EQ(Say(CLI::Range(1, 8), "9"), "--ctx: 9 is not between 1 and 8");
  EXPECT_EQ(Say(CLI::Validator(""), "lots"), "--ctx: 'lots' is not a number");
  EXPECT_EQ(Say(CLI::Range(1, 8), "3"), "");
}

TEST(UsageError, LeavesOtherMessagesAlone) {
  EXPECT_EQ(UsageErrorText("something else"), "something else");
}

}  // namespace
}  // namespace edgewise::cli
