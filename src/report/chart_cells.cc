// Heat maps, bars and timelines.
#include <fmt/format.h>

#include <algorithm>

#include "report/axis.h"
#include "report/charts.h"
#include "report/markup.h"

namespace edgewise::report {
namespace {

std::string Fill(int color) { return fmt::format("fc{}", std::clamp(color, 0, kInkColor)); }

double WidestText(const std::vector<std::string>& texts) {
  double width = 0;
  for (const std::string& text : texts) width = std::max(width, TextWidth(text));
  return width;
}

// As much of a name as fits.
std::string Fit(std::string text, double width) {
  if (TextWidth(text) <= width) return text;
  while (!text.empty() && TextWidth(text) + TextWidth("..") > width) {
    do {
      text.pop_back();
    } while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0xC0) == 0x80);
  }
  return text + "..";
}

// Every how many columns a label is written, so that neighbours keep apart.
size_t LabelEvery(const std::vector<std::string>& labels, double step) {
  for (size_t every : {1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64}) {
    if (static_cast<double>(every) * step >= WidestText(labels) + 6) return every;
  }
  return labels.size();
}

// A text that would touch the one before is left out.
void DrawXTicks(Svg& svg, const Axis& x, double y, double width) {
  double free_from = -1e9;
  for (double tick : x.ticks) {
    const std::string text = TickText(tick, x);
    const double w = TextWidth(text), at = std::clamp(x.At(tick), w / 2, width - w / 2);
    svg.Line({x.At(tick), y}, {x.At(tick), y + 4}, "axis");
    if (at - w / 2 < free_from) continue;
    free_from = at + w / 2 + 6;
    svg.Text(at, y + 17, Anchor::kMiddle, text, "muted");
  }
}

}  // namespace

std::string DrawHeatMap(const HeatMap& map, double width) {
  constexpr double kTop = 24, kBottom = 40;
  const double left = WidestText(map.rows) + 8;
  const double row_height = 22;
  const auto columns = static_cast<double>(std::max<size_t>(1, map.columns.size()));
  const double step = (width - left) / columns;
  const double gap = step > 6 ? 1.5 : 0;
  const double height = kTop + row_height * static_cast<double>(map.rows.size()) + kBottom;

  const auto scaled = [&](double v) { return map.log ? std::log10(v) : v; };
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;
  for (const auto& row : map.cells) {
    for (const HeatMap::Cell& cell : row) {
      if (!std::isfinite(cell.value) || (map.log && cell.value <= 0)) continue;
      lo = std::min(lo, scaled(cell.value));
      hi = std::max(hi, scaled(cell.value));
    }
  }

  Svg svg(width, height, map.label);
  svg.Text(0, 12, Anchor::kStart, map.y_label, "muted");
  for (size_t r = 0; r < map.rows.size() && r < map.cells.size(); ++r) {
    const double y = kTop + row_height * static_cast<double>(r);
    svg.Text(left - 6, y + row_height / 2 + 4, Anchor::kEnd, map.rows[r], "muted");
    for (size_t c = 0; c < map.columns.size() && c < map.cells[r].size(); ++c) {
      const HeatMap::Cell& cell = map.cells[r][c];
      if (!std::isfinite(cell.value)) continue;
      const double x = left + step * static_cast<double>(c);
      const bool lowest = (map.log && cell.value <= 0) || !(hi > lo);
      const double place = lowest ? 0 : (scaled(cell.value) - lo) / (hi - lo);
      svg.Rect(x, y, step - gap, row_height - 1.5, Fill(map.color), 0.08 + 0.87 * place, cell.tip);
      if (cell.text.empty() || TextWidth(cell.text) + 2 > step - gap) continue;
      svg.Text(x + (step - gap) / 2, y + row_height / 2 + 3.5, Anchor::kMiddle, cell.text,
               place > 0.55 ? "onfill" : "ink");
    }
  }
  const size_t every = LabelEvery(map.columns, step);
  for (size_t c = 0; c < map.columns.size(); c += every) {
    const double at = left + step * (static_cast<double>(c) + 0.5) - gap / 2;
    const double w = TextWidth(map.columns[c]);
    svg.Text(std::clamp(at, w / 2, width - w / 2), height - kBottom + 16, Anchor::kMiddle,
             map.columns[c], "muted");
  }
  svg.Text(width, height - 6, Anchor::kEnd, map.x_label, "muted");
  return std::move(svg).Finish();
}

std::string DrawBars(const BarChart& chart, double width) {
  constexpr double kTop = 6, kBottom = 40, kRow = 26;
  std::vector<std::string> names, texts;
  for (const BarChart::Bar& bar : chart.bars) {
    names.push_back(bar.name);
    texts.push_back(bar.text);
  }
  const double left = std::min(WidestText(names), 0.42 * width) + 8;
  const double right = WidestText(texts) + 8;
  double most = chart.max;
  if (most <= 0) {
    for (const BarChart::Bar& bar : chart.bars) most = std::max(most, bar.value);
  }
  Axis x = MakeAxis(0, most, width >= kWide ? 6 : 4);
  x.from = left;
  x.to = width - right;
  const double height = kTop + kRow * static_cast<double>(chart.bars.size()) + kBottom;
  Svg svg(width, height, chart.label);
  for (double tick : x.ticks) {
    svg.Line({x.At(tick), kTop}, {x.At(tick), height - kBottom}, "grid");
  }
  DrawXTicks(svg, x, height - kBottom, width);
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const BarChart::Bar& bar = chart.bars[i];
    const double y = kTop + kRow * static_cast<double>(i);
    const double end = x.At(std::clamp(std::isfinite(bar.value) ? bar.value : 0.0, 0.0, x.hi));
    svg.Text(left - 6, y + kRow / 2 + 4, Anchor::kEnd, Fit(bar.name, left - 8), "ink");
    svg.Rect(x.from, y + 4, std::max(1.0, end - x.from), kRow - 8, Fill(bar.color), -1,
             bar.name + ": " + bar.text);
    svg.Text(end + 6, y + kRow / 2 + 4, Anchor::kStart, bar.text, "ink halo");
  }
  svg.Line({x.from, kTop}, {x.from, height - kBottom}, "axis");
  svg.Text(x.to, height - 6, Anchor::kEnd, chart.x_label, "muted");
  return std::move(svg).Finish();
}

std::string DrawTimeline(const Timeline& timeline, double width) {
  constexpr double kTop = 6, kBottom = 40, kRow = 30;
  std::vector<std::string> names;
  double hi = 0;
  for (const Timeline::Lane& lane : timeline.lanes) {
    names.push_back(lane.name);
    for (const Timeline::Span& span : lane.spans) hi = std::max(hi, span.end);
  }
  const double left = std::min(WidestText(names), 0.35 * width) + 8;
  Axis x = MakeExactAxis(0, hi, width >= kWide ? 8 : 4);
  x.from = left;
  x.to = width - 10;
  const double height = kTop + kRow * static_cast<double>(timeline.lanes.size()) + kBottom;
  Svg svg(width, height, timeline.label);
  for (double tick : x.ticks) {
    svg.Line({x.At(tick), kTop}, {x.At(tick), height - kBottom}, "grid");
  }
  DrawXTicks(svg, x, height - kBottom, width);
  for (size_t i = 0; i < timeline.lanes.size(); ++i) {
    const double y = kTop + kRow * static_cast<double>(i);
    svg.Text(left - 6, y + kRow / 2 + 4, Anchor::kEnd, Fit(timeline.lanes[i].name, left - 8),
             "ink");
    for (const Timeline::Span& span : timeline.lanes[i].spans) {
      if (!std::isfinite(span.start) || !(span.end > span.start)) continue;
      const double from = x.At(std::max(0.0, span.start)), to = x.At(std::min(span.end, x.hi));
      svg.Rect(from, y + 5, std::max(0.6, to - from), kRow - 10, "block " + Fill(span.color), -1,
               span.tip);
    }
  }
  svg.Line({x.from, height - kBottom}, {x.to, height - kBottom}, "axis");
  svg.Text(x.to, height - 6, Anchor::kEnd, timeline.x_label, "muted");
  return std::move(svg).Finish();
}

std::string Figure(const std::string& title, const std::string& note,
                   const std::vector<LegendEntry>& legend,
                   const std::function<std::string(double width)>& draw) {
  std::string out = "<figure>\n<figcaption>" + Element("h3", title) + "\n";
  if (!note.empty()) out += Element("p", note) + "\n";
  out += "</figcaption>\n";
  if (!legend.empty()) {
    out += "<ul class=\"legend\">";
    for (const LegendEntry& e : legend) {
      const int color = std::clamp(e.color, 0, kInkColor);
      const char* kind = e.filled                  ? "box"
                         : e.mark == Mark::kDashed ? "dash"
                         : e.mark == Mark::kDots   ? "dot"
                         : e.mark == Mark::kFaint  ? "stroke pale"
                                                   : "stroke";
      out += fmt::format("<li><i class=\"{} k{}\"></i>{}</li>", kind, color, EscapeHtml(e.name));
    }
    out += "</ul>\n";
  }
  out += "<div class=\"wide\">" + draw(kWide) + "</div>\n";
  out += "<div class=\"narrow\">" + draw(kNarrow) + "</div>\n</figure>\n";
  return out;
}

}  // namespace edgewise::report
