#include "infer/stop_strings.h"

#include <gtest/gtest.h>

namespace edgewise::infer {
namespace {

TEST(StopStrings, HoldsBackWhatMayBecomeAStop) {
  StopStrings stop({"END", "\n\n"});
  EXPECT_EQ(stop.Feed("one E"), "one ");
  EXPECT_EQ(stop.Feed("N"), "");
  EXPECT_EQ(stop.Feed("T\n"), "ENT");
  EXPECT_EQ(stop.Feed("x"), "\nx");
  EXPECT_EQ(stop.Feed("y\n\nz"), "y");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.Feed("more"), "");
  EXPECT_EQ(stop.Finish(), "");
}

TEST(StopStrings, EndGivesBackTheHeldTail) {
  StopStrings stop({"END"});
  EXPECT_EQ(stop.Feed("an EN"), "an ");
  EXPECT_EQ(stop.Finish(), "EN");
  EXPECT_FALSE(stop.stopped());
}

TEST(StopStrings, TheEarliestOfSeveralWins) {
  StopStrings stop({"bc", "ab"});
  EXPECT_EQ(stop.Feed("xabc"), "x");
}

TEST(StopStrings, AnyCutOfTheTextGivesTheSame) {
  const std::string text = "aaabaaabab!aaab";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    StopStrings stop({"aabab"});
    std::string out = stop.Feed(text.substr(0, cut));
    out += stop.Feed(text.substr(cut));
    out += stop.Finish();
    EXPECT_EQ(out, "aaaba") << cut;
  }
}

TEST(StopStrings, NoneAndEmptyOnesChangeNothing) {
  StopStrings stop({"", ""});
  EXPECT_EQ(stop.Feed("text"), "text");
  EXPECT_FALSE(stop.stopped());
}

}  // namespace
}  // namespace edgewise::infer
