// A small drawing surface: shapes in, SVG text out. Colours come from CSS classes, so that one
// drawing is readable on light and on dark ground:
//   ink, muted     text          axis, grid      lines of the frame
//   c0 .. c8       colours of series, as stroke (s) and fill (f) classes: "sc0", "fc0"
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise::report {

inline constexpr int kSeriesColors = 8;
inline constexpr int kInkColor = kSeriesColors;  // that of text, for what stands before all series
inline constexpr double kFontPx = 12;            // of all text in a drawing

struct Point {
  double x = 0, y = 0;
};

// About how wide a text is, in pixels at kFontPx: never much too small for common sans-serif fonts.
double TextWidth(std::string_view text);

// "12.5", "3", without needless digits: a coordinate.
std::string Coordinate(double value);

enum class Anchor { kStart, kMiddle, kEnd };

class Svg {
 public:
  // `label` is what a screen reader says.
  Svg(double width, double height, std::string_view label);

  void Line(Point from, Point to, std::string_view css);
  // opacity < 0: as the class says. `tip` is shown when pointed at; "" for none.
  void Rect(double x, double y, double w, double h, std::string_view css, double opacity = -1,
            std::string_view tip = {});
  void Circle(Point center, double r, std::string_view css, std::string_view tip = {});
  void Polyline(std::span<const Point> points, std::string_view css);
  // The surface between two lines with the same x.
  void Band(std::span<const Point> upper, std::span<const Point> lower, std::string_view css);
  void Text(double x, double y, Anchor anchor, std::string_view text, std::string_view css = "ink");

  std::string Finish() &&;

 private:
  void Tip(std::string_view tag, std::string_view tip);
  std::string out_;
};

}  // namespace edgewise::report
