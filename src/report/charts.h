// Charts as SVG text. Each is drawn twice by Figure: for a desktop's width and for a phone's, so
// that text keeps its size on both.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "report/svg.h"

namespace edgewise::report {

inline constexpr double kWide = 664, kNarrow = 312;  // pixels

inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

enum class Mark {
  kLine,    // joined, strong
  kFaint,   // joined, in the background: single measurements behind a mean
  kDots,    // single measurements joined by a thin line
  kDashed,  // a limit or a prediction
};

struct Series {
  std::string name;
  int color = 0;  // 0 .. kInkColor
  Mark mark = Mark::kLine;
  std::vector<Point> points;  // ascending x; points with a y that is not finite are gaps
};

// Series over a common x. `stacked` are drawn as surfaces on top of each other (each series' own
// height in y, all with the same x); `lines` over them.
struct LineChart {
  std::string label;             // for screen readers
  std::string x_label, y_label;  // with unit
  std::vector<Series> lines;
  std::vector<Series> stacked;
  bool from_zero = false;  // the y axis begins at 0
  // The y axis is logarithmic where that is possible: nothing stacked, and values above 0. What
  // reaches below the lowest value of the lines that are not kFaint is drawn at the bottom.
  bool log_y = false;
};
std::string DrawLines(const LineChart& chart, double width);

// Rows x columns of coloured cells; the colour's strength is the value's place between the lowest
// and the highest (of the logarithms with `log`, where values <= 0 count as the lowest).
struct HeatMap {
  std::string label, x_label, y_label;
  std::vector<std::string> rows, columns;
  struct Cell {
    double value = kNone;  // kNone: nothing there
    std::string text;      // written into the cell where there is room
    std::string tip;
  };
  std::vector<std::vector<Cell>> cells;  // [row][column]
  int color = 0;
  bool log = false;
};
std::string DrawHeatMap(const HeatMap& map, double width);

// Horizontal bars with their values behind them.
struct BarChart {
  std::string label, x_label;
  struct Bar {
    std::string name;
    double value = 0;
    std::string text;
    int color = 0;
  };
  std::vector<Bar> bars;
  double max = 0;  // end of the axis; 0: the largest value
};
std::string DrawBars(const BarChart& chart, double width);

// What happens when: one lane for each resource, spans on it.
struct Timeline {
  std::string label, x_label;
  struct Span {
    double start = 0, end = 0;
    int color = 0;
    std::string tip;
  };
  struct Lane {
    std::string name;
    std::vector<Span> spans;
  };
  std::vector<Lane> lanes;
};
std::string DrawTimeline(const Timeline& timeline, double width);

struct LegendEntry {
  std::string name;
  int color = 0;
  Mark mark = Mark::kLine;
  bool filled = false;
};

// A titled figure: `title` says what to see, `note` how to read it; `draw` is called for both
// widths.
std::string Figure(const std::string& title, const std::string& note,
                   const std::vector<LegendEntry>& legend,
                   const std::function<std::string(double width)>& draw);

// At most `count` points: within each run of neighbours the mean, so that no curve loses its shape.
std::vector<Point> Thin(const std::vector<Point>& points, size_t count);
// Exponential mean with the given decay, corrected for its start.
std::vector<Point> Smooth(const std::vector<Point>& points, double decay);

}  // namespace edgewise::report
