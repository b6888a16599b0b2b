#include <fmt/format.h>

#include <algorithm>

#include "report/axis.h"
#include "report/charts.h"

namespace edgewise::report {
namespace {

constexpr double kTop = 26;     // room for the label of the y axis
constexpr double kBottom = 40;  // tick texts and the label of the x axis
constexpr double kRight = 10;

struct Range {
  double lo = std::numeric_limits<double>::infinity();
  double hi = -std::numeric_limits<double>::infinity();
  void Add(double v) {
    if (!std::isfinite(v)) return;
    lo = std::min(lo, v);
    hi = std::max(hi, v);
  }
};

std::string Css(const char* prefix, int color) {
  return fmt::format("{}c{}", prefix, std::clamp(color, 0, kInkColor));
}

const char* LineClass(Mark mark) {
  switch (mark) {
    case Mark::kFaint:
      return "faint";
    case Mark::kDots:
      return "thin";
    case Mark::kDashed:
      return "dashed";
    case Mark::kLine:
      break;
  }
  return "line";
}

// Upper edges of the stacked series, the first one lowest.
std::vector<std::vector<Point>> Pile(const std::vector<Series>& stacked) {
  std::vector<std::vector<Point>> edges;
  for (const Series& s : stacked) {
    std::vector<Point> edge = s.points;
    if (!edges.empty()) {
      const size_t n = std::min(edge.size(), edges.back().size());
      edge.resize(n);
      for (size_t i = 0; i < n; ++i) edge[i].y += edges.back()[i].y;
    }
    edges.push_back(std::move(edge));
  }
  return edges;
}

void DrawSeries(Svg& svg, const Series& s, const Axis& x, const Axis& y) {
  const std::string css = fmt::format("{} {}", LineClass(s.mark), Css("s", s.color));
  std::vector<Point> run;
  const auto flush = [&] {
    if (run.size() > 1) svg.Polyline(run, css);
    // A single point between gaps would be invisible as a line.
    if (run.size() == 1 && s.mark != Mark::kFaint) svg.Circle(run[0], 2, Css("f", s.color));
    run.clear();
  };
  for (const Point& p : s.points) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y)) {
      flush();
      continue;
    }
    run.push_back({x.At(p.x), y.At(std::clamp(p.y, y.lo, y.hi))});
  }
  flush();
  if (s.mark != Mark::kDots) return;
  for (const Point& p : s.points) {
    if (!std::isfinite(p.y)) continue;
    svg.Circle({x.At(p.x), y.At(std::clamp(p.y, y.lo, y.hi))}, 3, Css("f", s.color),
               fmt::format("{}: {:.4g} at {:.6g}", s.name, p.y, p.x));
  }
}

}  // namespace

std::string DrawLines(const LineChart& chart, double width) {
  const double height = width >= kWide ? 280 : 240;
  const auto edges = Pile(chart.stacked);
  Range xs, ys, positive;
  for (const auto& edge : edges) {
    for (const Point& p : edge) {
      xs.Add(p.x);
      ys.Add(p.y);
    }
  }
  for (const Series& s : chart.lines) {
    for (const Point& p : s.points) {
      xs.Add(p.x);
      ys.Add(p.y);
      if (s.mark != Mark::kFaint && p.y > 0) positive.Add(p.y);
    }
  }
  if (chart.from_zero || !chart.stacked.empty()) ys.Add(0);
  const bool log_y = chart.log_y && chart.stacked.empty() && positive.lo <= positive.hi;
  Axis y = log_y ? MakeLogAxis(positive.lo, positive.hi) : MakeAxis(ys.lo, ys.hi, 6);
  double left = 0;
  for (double tick : y.ticks) left = std::max(left, TextWidth(TickText(tick, y)));
  left += 10;
  Axis x = MakeExactAxis(xs.lo, xs.hi, width >= kWide ? 8 : 5);
  x.from = left;
  x.to = width - kRight;
  y.from = height - kBottom;
  y.to = kTop;

  Svg svg(width, height, chart.label);
  svg.Text(0, 12, Anchor::kStart, chart.y_label, "muted");
  for (double tick : y.ticks) {
    svg.Line({x.from, y.At(tick)}, {x.to, y.At(tick)}, "grid");
    svg.Text(left - 6, y.At(tick) + 4, Anchor::kEnd, TickText(tick, y), "muted");
  }
  double free_from = -1e9;
  for (double tick : x.ticks) {
    const std::string text = TickText(tick, x);
    const double w = TextWidth(text), at = std::clamp(x.At(tick), w / 2, width - w / 2);
    svg.Line({x.At(tick), y.from}, {x.At(tick), y.from + 4}, "axis");
    if (at - w / 2 < free_from) continue;
    free_from = at + w / 2 + 6;
    svg.Text(at, y.from + 17, Anchor::kMiddle, text, "muted");
  }
  svg.Text(x.to, height - 6, Anchor::kEnd, chart.x_label, "muted");

  for (size_t i = 0; i < edges.size(); ++i) {
    std::vector<Point> upper, lower;
    for (size_t k = 0; k < edges[i].size(); ++k) {
      const double px = x.At(edges[i][k].x);
      upper.push_back({px, y.At(edges[i][k].y)});
      lower.push_back({px, i == 0 ? y.from : y.At(edges[i - 1][k].y)});
    }
    svg.Band(upper, lower, Css("band f", chart.stacked[i].color));
  }
  svg.Line({x.from, y.from}, {x.to, y.from}, "axis");
  for (const Series& s : chart.lines) DrawSeries(svg, s, x, y);
  return std::move(svg).Finish();
}

std::vector<Point> Thin(const std::vector<Point>& points, size_t count) {
  if (points.size() <= count || count == 0) return points;
  std::vector<Point> out;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * points.size() / count, end = (i + 1) * points.size() / count;
    Point sum;
    double n = 0;
    for (size_t k = begin; k < end; ++k) {
      if (!std::isfinite(points[k].y)) continue;
      sum.x += points[k].x;
      sum.y += points[k].y;
      ++n;
    }
    out.push_back(n > 0 ? Point{sum.x / n, sum.y / n} : Point{points[begin].x, kNone});
  }
  return out;
}

std::vector<Point> Smooth(const std::vector<Point>& points, double decay) {
  std::vector<Point> out;
  double mean = 0, weight = 0;
  for (const Point& p : points) {
    if (!std::isfinite(p.y)) continue;
    mean = decay * mean + (1 - decay) * p.y;
    weight = decay * weight + (1 - decay);
    out.push_back({p.x, mean / weight});
  }
  return out;
}

}  // namespace edgewise::report
