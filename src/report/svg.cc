#include "report/svg.h"

#include <fmt/format.h>

#include <cmath>

#include "report/markup.h"

namespace edgewise::report {

double TextWidth(std::string_view text) {
  double em = 0;
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if ((u & 0xC0) == 0x80) continue;  // counted with its first byte
    if (u >= 0x80 || c == 'm' || c == 'M' || c == 'w' || c == 'W' || c == '%') {
      em += 0.98;
    } else if (c >= 'A' && c <= 'Z') {
      em += 0.72;
    } else if (std::string_view("ijlt.,:;|!'() ").find(c) != std::string_view::npos) {
      em += 0.36;
    } else {
      em += 0.62;
    }
  }
  return em * kFontPx;
}

std::string Coordinate(double value) {
  if (!std::isfinite(value)) return "0";
  std::string text = fmt::format("{:.2f}", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

Svg::Svg(double width, double height, std::string_view label) {
  out_ = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
                     Coordinate(width), Coordinate(height), EscapeHtml(label));
}

void Svg::Line(Point from, Point to, std::string_view css) {
  out_ +=
      fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\"/>\n",
                  Coordinate(from.x), Coordinate(from.y), Coordinate(to.x), Coordinate(to.y), css);
}

void Svg::Tip(std::string_view tag, std::string_view tip) {
  if (tip.empty()) {
    out_ += "/>\n";
  } else {
    out_ += fmt::format("><title>{}</title></{}>\n", EscapeHtml(tip), tag);
  }
}

void Svg::Rect(double x, double y, double w, double h, std::string_view css, double opacity,
               std::string_view tip) {
  out_ += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{}\"",
                      Coordinate(x), Coordinate(y), Coordinate(w), Coordinate(h), css);
  if (opacity >= 0) out_ += fmt::format(" fill-opacity=\"{}\"", Coordinate(opacity));
  Tip("rect", tip);
}

void Svg::Circle(Point center, double r, std::string_view css, std::string_view tip) {
  out_ += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"{}\" class=\"{}\"", Coordinate(center.x),
                      Coordinate(center.y), Coordinate(r), css);
  Tip("circle", tip);
}

void Svg::Polyline(std::span<const Point> points, std::string_view css) {
  if (points.empty()) return;
  out_ += "<polyline points=\"";
  for (const Point& p : points) {
    out_ += fmt::format("{},{} ", Coordinate(p.x), Coordinate(p.y));
  }
  out_.back() = '"';
  out_ += fmt::format(" class=\"{}\"/>\n", css);
}

void Svg::Band(std::span<const Point> upper, std::span<const Point> lower, std::string_view css) {
  if (upper.empty()) return;
  out_ += "<polygon points=\"";
  for (const Point& p : upper) out_ += fmt::format("{},{} ", Coordinate(p.x), Coordinate(p.y));
  for (size_t i = lower.size(); i-- > 0;) {
    out_ += fmt::format("{},{} ", Coordinate(lower[i].x), Coordinate(lower[i].y));
  }
  out_.back() = '"';
  out_ += fmt::format(" class=\"{}\"/>\n", css);
}

void Svg::Text(double x, double y, Anchor anchor, std::string_view text, std::string_view css) {
  static constexpr const char* kAnchors[] = {"start", "middle", "end"};
  out_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n",
                      Coordinate(x), Coordinate(y), kAnchors[static_cast<int>(anchor)], css,
                      EscapeHtml(text));
}

std::string Svg::Finish() && { return std::move(out_) + "</svg>\n"; }

}  // namespace edgewise::report
