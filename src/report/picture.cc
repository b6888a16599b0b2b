// One picture of a run that stands by itself, for a document or a slide.
#include <fmt/format.h>

#include <algorithm>

#include "report/charts.h"
#include "report/json_path.h"
#include "report/markup.h"
#include "report/run_report.h"
#include "report/section_parts.h"

namespace edgewise::report {
namespace {

constexpr double kWidth = 720, kHeight = 292, kMargin = 28;

// As in the page, but inside of the drawing: documents show pictures without their own styles.
constexpr std::string_view kPictureStyle =
    "<style>text{font:12px system-ui,-apple-system,\"Segoe UI\",Roboto,\"Liberation Sans\","
    "\"DejaVu "
    "Sans\",sans-serif;fill:#1f2328}.muted{fill:#5a6169}.title{font-size:17px;font-weight:600}"
    ".said{font-size:14px}.code{font:13px ui-monospace,Menlo,Consolas,\"DejaVu Sans "
    "Mono\",monospace}"
    ".good{fill:#1f6b3f}.bad{fill:#a3262f}.card{fill:#fffefb;stroke:#dedad0}"
    ".axis{stroke:#5a6169}.grid{stroke:#ebe8df}.fc0{fill:#1f5fa8}.fc1{fill:#b8500f}.fc7{fill:#"
    "69717a}"
    "@media(prefers-color-scheme:dark){text{fill:#e7e5df}.muted{fill:#a3abb3}.good{fill:#7fd09b}"
    ".bad{fill:#f2949b}.card{fill:#1c2126;stroke:#333a41}.axis{stroke:#a3abb3}.grid{stroke:#2a3036}"
    ".fc0{fill:#77b0f5}.fc1{fill:#f29a5e}.fc7{fill:#a4adb6}}</style>\n";

std::string FirstLine(const std::string& text, size_t bytes) {
  return Shorten(text.substr(0, text.find('\n')), bytes);
}

// A drawing placed inside of another one.
std::string Placed(const std::string& svg, double x, double y, double w, double h) {
  return fmt::format("<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {}", Coordinate(x),
                     Coordinate(y), Coordinate(w), Coordinate(h), svg.substr(5));
}

}  // namespace

std::string RenderPicture(const RunReport& r) {
  Svg body(kWidth, kHeight, "What a run of edgewise changed");
  std::string out = std::move(body).Finish();
  out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"292\"" + out.substr(4);
  out.resize(out.rfind("</svg>"));
  out += kPictureStyle;
  out += fmt::format(
      "<rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\" class=\"card\"/>\n",
      kWidth - 1, kHeight - 1);
  const auto text = [&](double x, double y, const char* css, const std::string& words) {
    out += fmt::format("<text x=\"{}\" y=\"{}\" class=\"{}\">{}</text>\n", Coordinate(x),
                       Coordinate(y), css, EscapeHtml(words));
  };
  double y = 40;
  text(kMargin, y, "title", "Taught on this machine");
  // A sample that shows the difference; the first one where none does.
  const ReportSample* shown = r.samples.empty() ? nullptr : &r.samples.front();
  for (const ReportSample& s : r.samples) {
    if (s.after != s.wanted || s.before == s.wanted) continue;
    shown = &s;
    break;
  }
  if (shown != nullptr) {
    text(kMargin, y += 30, "said", "\xE2\x80\x9C" + FirstLine(shown->prompt, 84) + "\xE2\x80\x9D");
    text(kMargin, y += 26, "muted", "before");
    text(kMargin + 56, y, "code bad", FirstLine(shown->before, 72));
    text(kMargin, y += 22, "muted", "after");
    text(kMargin + 56, y, "code good", FirstLine(shown->after, 72));
  }
  BarChart chart;
  chart.label = "Answers exactly right";
  chart.x_label = "held-out requests answered exactly right (%)";
  chart.max = 100;
  const auto add = [&](const std::string& name, const Json& score, int color) {
    const double share = NumberAt(score, {"accuracy"}, kNone);
    if (std::isfinite(share)) chart.bars.push_back({name, 100 * share, Percent(share), color});
  };
  add("before", r.before, 7);
  add("edgewise", r.after, 0);
  for (const RunReport::Other& other : r.others) add(other.name, other.score, 1);
  if (!chart.bars.empty()) {
    const double height = 46 + 26 * static_cast<double>(chart.bars.size());
    out += Placed(DrawBars(chart, kWide), kMargin, kHeight - height - 16, kWide, height);
  }
  return out + "</svg>\n";
}

}  // namespace edgewise::report
