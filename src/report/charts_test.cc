#include "report/charts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/axis.h"

namespace edgewise::report {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Axis, TicksAreRoundAndCoverTheRange) {
  struct Case {
    double lo, hi;
  };
  for (const Case c : {Case{0, 1}, Case{0.13, 4.7}, Case{-3, 12}, Case{1e-9, 3e-9}, Case{0, 123456},
                       Case{1e12, 1.5e12}}) {
    const Axis axis = MakeAxis(c.lo, c.hi, 6);
    EXPECT_LE(axis.lo, c.lo + 1e-6 * (c.hi - c.lo));
    EXPECT_GE(axis.hi, c.hi - 1e-6 * (c.hi - c.lo));
    EXPECT_GE(axis.ticks.size(), 2u) << c.lo << " " << c.hi;
    EXPECT_LE(axis.ticks.size(), 8u) << c.lo << " " << c.hi;
    for (size_t i = 1; i < axis.ticks.size(); ++i) {
      EXPECT_NE(TickText(axis.ticks[i - 1], axis), TickText(axis.ticks[i], axis));
    }
  }
}

TEST(Axis, SurvivesRangesWithoutExtent) {
  for (const auto& [lo, hi] : {std::pair{5.0, 5.0}, std::pair{0.0, 0.0}, std::pair{kNone, 1.0},
                               std::pair{3.0, 1.0}, std::pair{-7.0, -7.0}}) {
    const Axis axis = MakeAxis(lo, hi, 6);
    EXPECT_LT(axis.lo, axis.hi);
    EXPECT_FALSE(axis.ticks.empty());
  }
}

TEST(Axis, LogarithmicOnesGoFromPowerToPower) {
  const Axis axis = MakeLogAxis(0.004, 6.7);
  EXPECT_EQ(axis.ticks.size(), 5u);
  EXPECT_EQ(TickText(axis.ticks.front(), axis), "0.001");
  EXPECT_EQ(TickText(axis.ticks.back(), axis), "10");
  EXPECT_NEAR(axis.At(0.1), 0.5, 1e-12);
  EXPECT_EQ(MakeLogAxis(1, 1).ticks.size(), 2u);
}

TEST(Axis, TextsOfTicks) {
  const Axis small = MakeAxis(0, 0.4, 5), large = MakeAxis(0, 40000, 5);
  EXPECT_EQ(TickText(0.1, small), "0.1");
  EXPECT_EQ(TickText(20000, large), "20k");
  EXPECT_EQ(TickText(0, large), "0");
}

TEST(Lines, GapsAndBadNumbersAreLeftOut) {
  LineChart chart;
  chart.label = "a <b>";
  chart.lines = {{"s", 0, Mark::kLine, {{0, 1}, {1, 2}, {2, kNone}, {3, 1}, {4, 2}}},
                 {"t", 99, Mark::kDots, {{1, std::numeric_limits<double>::infinity()}}}};
  const std::string svg = DrawLines(chart, kWide);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_THAT(svg, HasSubstr("a &lt;b&gt;"));
  size_t lines = 0;
  for (size_t at = 0; (at = svg.find("<polyline", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, 2u);
}

TEST(Lines, EmptyChartsAreDrawn) {
  EXPECT_THAT(DrawLines({}, kNarrow), HasSubstr("</svg>"));
  EXPECT_THAT(DrawHeatMap({}, kNarrow), HasSubstr("</svg>"));
  EXPECT_THAT(DrawBars({}, kNarrow), HasSubstr("</svg>"));
  EXPECT_THAT(DrawTimeline({}, kNarrow), HasSubstr("</svg>"));
}

TEST(HeatMap, TextOnlyWhereThereIsRoom) {
  HeatMap map;
  map.rows = {"row"};
  map.cells.resize(1);
  for (int i = 0; i < 64; ++i) {
    map.columns.push_back(std::to_string(i));
    map.cells[0].push_back({static_cast<double>(i), "1234", ""});
  }
  EXPECT_THAT(DrawHeatMap(map, kNarrow), Not(HasSubstr("1234")));
  map.columns.resize(2);
  EXPECT_THAT(DrawHeatMap(map, kNarrow), HasSubstr("1234"));
}

TEST(Points, ThinningKeepsEndsAndMean) {
  std::vector<Point> points;
  for (int i = 0; i < 1000; ++i) points.push_back({static_cast<double>(i), 2.0 * i});
  const auto thin = Thin(points, 100);
  ASSERT_EQ(thin.size(), 100u);
  EXPECT_DOUBLE_EQ(thin.front().x, 4.5);
  EXPECT_DOUBLE_EQ(thin.back().y, 2 * 994.5);
  EXPECT_EQ(Thin(points, 5000).size(), points.size());
}

TEST(Points, SmoothingOfAConstantIsTheConstant) {
  const auto smooth = Smooth({{0, 3}, {1, 3}, {2, kNone}, {3, 3}}, 0.9);
  ASSERT_EQ(smooth.size(), 3u);
  for (const Point& p : smooth) EXPECT_NEAR(p.y, 3, 1e-12);
}

}  // namespace
}  // namespace edgewise::report
