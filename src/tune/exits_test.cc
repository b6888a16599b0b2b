#include "tune/exits.h"

#include <gtest/gtest.h>

#include <set>

namespace edgewise::tune {
namespace {

TEST(LayOutExits, AsTheReleasedStrideOfEight) {
  const auto exits = LayOutExits(32, {.exits = 4});
  ASSERT_TRUE(exits.ok());
  ASSERT_EQ(exits->size(), 4u);
  for (int64_t k = 0; k < 4; ++k) {
    EXPECT_EQ((*exits)[static_cast<size_t>(k)].begin, 8 * k);
    EXPECT_EQ((*exits)[static_cast<size_t>(k)].end, 8 * (k + 1));
  }
}

TEST(LayOutExits, CoversEveryLayerOnceForAnyCount) {
  for (int64_t layers = 1; layers <= 40; ++layers) {
    for (int64_t count = 1; count <= layers; ++count) {
      const auto exits = LayOutExits(layers, {.exits = count});
      ASSERT_TRUE(exits.ok());
      int64_t at = 0;
      for (const Exit& e : *exits) {
        EXPECT_EQ(e.begin, at);
        EXPECT_GT(e.end, e.begin);
        at = e.end;
      }
      EXPECT_EQ(at, layers);
    }
  }
  EXPECT_FALSE(LayOutExits(3, {.exits = 4}).ok());
  EXPECT_FALSE(LayOutExits(12, {.exits = 4, .window = 5}).ok());
  EXPECT_EQ((*LayOutExits(12, {.exits = 4, .window = 2}))[1].begin, 4);
}

TEST(LayOutExits, RisingWindowsReachTheTop) {
  const auto exits = LayOutExits(12, {.exits = 4, .layout = WindowLayout::kRising});
  ASSERT_TRUE(exits.ok());
  for (int64_t k = 0; k < 4; ++k) {
    EXPECT_EQ((*exits)[static_cast<size_t>(k)].begin, 3 * k);
    EXPECT_EQ((*exits)[static_cast<size_t>(k)].end, 12);
  }
  const auto upper = LayOutExits(12, {.exits = 2, .first_layer = 6});
  ASSERT_TRUE(upper.ok());
  EXPECT_EQ((*upper)[0].begin, 6);
  EXPECT_EQ((*upper)[1].begin, 9);
  EXPECT_EQ((*upper)[1].end, 12);
  EXPECT_FALSE(LayOutExits(12, {.window = 3, .layout = WindowLayout::kRising}).ok());
  EXPECT_FALSE(LayOutExits(12, {.first_layer = 12}).ok());
  EXPECT_FALSE(LayOutExits(12, {.exits = 4, .first_layer = 9}).ok());
}

TEST(SmallerWindows, EachCountHasASmallerLargestWindow) {
  using Counts = std::vector<int64_t>;
  // Of 22 layers at most 22, 11, 8, 6, 5, 4, 3, 2, 1 in a window.
  EXPECT_EQ(SmallerWindows(22, {.exits = 1}, 100), (Counts{2, 3, 4, 5, 6, 8, 11, 22}));
  EXPECT_EQ(SmallerWindows(30, {.exits = 1, .first_layer = 22}, 100), (Counts{2, 3, 4, 8}));
  EXPECT_EQ(SmallerWindows(30, {.exits = 3, .first_layer = 22}, 100), (Counts{4, 8}));
  EXPECT_EQ(SmallerWindows(30, {.exits = 1, .first_layer = 22}, 7), (Counts{2, 3, 4}));
  EXPECT_EQ(SmallerWindows(30, {.exits = 1, .first_layer = 22}, 1), Counts{});
  EXPECT_EQ(SmallerWindows(30, {.exits = 8, .first_layer = 22}, 100), Counts{});
  // What is chosen otherwise stays.
  EXPECT_EQ(SmallerWindows(12, {.exits = 1, .window = 3}, 100), Counts{});
  EXPECT_EQ(SmallerWindows(12, {.exits = 1, .layout = WindowLayout::kRising}, 100), Counts{});
  EXPECT_EQ(SmallerWindows(12, {.exits = 1, .first_layer = 12}, 100), Counts{});
  for (int64_t layers = 1; layers <= 40; ++layers) {
    int64_t largest = layers;
    for (int64_t count : SmallerWindows(layers, {.exits = 1}, layers)) {
      const int64_t one = LargestWindow(*LayOutExits(layers, {.exits = count}));
      EXPECT_LT(one, largest);
      largest = one;
    }
    EXPECT_EQ(largest, 1);
  }
}

TEST(ExitSchedule, PhasesByShare) {
  ExitSchedule schedule(
      {.order = ExitOrder::kSequential, .exits = 3, .total_steps = 10, .shares = {1, 1, 3}});
  const std::vector<int> want = {0, 0, 1, 1, 2, 2, 2, 2, 2, 2};
  for (int64_t s = 0; s < 10; ++s) {
    EXPECT_EQ(schedule.ExitAt(s), want[static_cast<size_t>(s)]) << s;
    const auto [begin, end] = schedule.Phase(s);
    EXPECT_EQ(begin, s < 2 ? 0 : s < 4 ? 2 : 4);
    EXPECT_EQ(end, s < 2 ? 2 : s < 4 ? 4 : 10);
  }
}

TEST(ExitSchedule, FixedOrders) {
  ExitSchedule sequential({.order = ExitOrder::kSequential, .exits = 4, .total_steps = 10});
  std::vector<int> got;
  for (int64_t s = 0; s < 10; ++s) got.push_back(sequential.ExitAt(s));
  EXPECT_EQ(got, (std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3, 3, 3}));
  ExitSchedule cyclic({.order = ExitOrder::kCyclic, .exits = 3});
  EXPECT_EQ(cyclic.ExitAt(7), 1);
  ExitSchedule random({.order = ExitOrder::kRandom, .exits = 3, .seed = 5});
  std::set<int> seen;
  for (int64_t s = 0; s < 50; ++s) seen.insert(random.ExitAt(s));
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(random.ExitAt(17), random.ExitAt(17));
}

TEST(ExitSchedule, AdaptiveTriesEachThenFollowsTheGainAndResumes) {
  const ExitSchedule::Options options{
      .order = ExitOrder::kAdaptive, .exits = 2, .predicted_seconds = {1.0, 2.0}, .turn_steps = 4};
  ExitSchedule a(options), b(options);
  a.ReportLoss(0, 0, 3.0);
  a.ReportLoss(1, 0, 3.0);
  EXPECT_EQ(a.ExitAt(0), 1);
  a.ReportLoss(1, 4, 2.5);  // 0.5 / (2 * 4)
  EXPECT_EQ(a.ExitAt(4), 0);
  a.ReportLoss(0, 8, 2.9);  // 0.1 / 4
  ASSERT_TRUE(b.RestoreState(a.SaveState()).ok());
  EXPECT_EQ(a.ExitAt(8), 1);
  EXPECT_EQ(b.ExitAt(8), 1);
  a.ReportLoss(1, 12, 2.49);
  EXPECT_EQ(a.ExitAt(12), 0);
}

}  // namespace
}  // namespace edgewise::tune
