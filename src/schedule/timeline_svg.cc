#include "schedule/timeline_svg.h"

#include <fmt/format.h>

#include <algorithm>

namespace edgewise::schedule {
namespace {

constexpr int kWidth = 1000, kLeft = 70, kLane = 34, kTop = 46;

struct Lane {
  char stream;
  const char* name;
  const char* colour;
};
constexpr Lane kLanes[] = {
    {'c', "compute", "#4878a8"}, {'l', "load", "#d08a3c"}, {'s', "store", "#6a9a5b"}};

std::string Escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string TimelineSvg(const plan::Plan& p) {
  double end = 1e-9;
  for (const plan::Span& s : p.timeline) end = std::max(end, s.end);
  const double scale = (kWidth - kLeft - 10) / end;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<text x=\"{}\" y=\"18\">{}{}: a step of "
      "{:.3f} "
      "s, {} micro-batches of {} tokens</text>\n",
      kWidth, kTop + 3 * kLane + 30, kLeft, Escape(p.device), p.simulated ? " (simulated)" : "",
      p.predicted_seconds, p.choice.micro_batches, p.choice.tokens);
  int y = kTop;
  for (const Lane& lane : kLanes) {
    svg += fmt::format("<text x=\"4\" y=\"{}\">{}</text>\n", y + 16, lane.name);
    for (const plan::Span& s : p.timeline) {
      if (s.stream != lane.stream) continue;
      svg += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\" stroke=\"white\" "
          "stroke-width=\"0.3\"><title>{}: {:.4f} to {:.4f} s</title></rect>\n",
          kLeft + std::max(0.0, s.begin) * scale, y,
          std::max(0.2, (s.end - std::max(0.0, s.begin)) * scale), kLane - 8, lane.colour,
          Escape(s.name), s.begin, s.end);
    }
    y += kLane;
  }
  for (int tick = 0; tick <= 5; ++tick) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" fill=\"#666\">{:.3g} s</text>\n",
                       kLeft + (kWidth - kLeft - 50) * tick / 5.0, y + 14, end * tick / 5);
  }
  return svg + "</svg>\n";
}

}  // namespace edgewise::schedule
