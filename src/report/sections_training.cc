// What the run learned: loss, exits.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "report/charts.h"
#include "report/json_path.h"
#include "report/section_parts.h"
#include "report/sections.h"

namespace edgewise::report {
namespace {

constexpr size_t kMaxPoints = 400, kMaxExits = 16;

std::string ExitName(int exit) { return fmt::format("exit {}", exit + 1); }

bool SamePoint(const Point& a, const Point& b) { return a.x == b.x && a.y == b.y; }

int ExitColor(int exit) { return exit < 0 ? 0 : exit % kSeriesColors; }

LegendEntry Legend(const Series& s) { return {s.name, s.color, s.mark, false}; }

std::string LossTitle(const RunReport& r) {
  const ValidPoint* first = nullptr;
  const ValidPoint* best = nullptr;
  for (const ValidPoint& v : r.valid) {
    if (v.exit >= 0 || !std::isfinite(v.loss)) continue;
    if (first == nullptr) first = &v;
    if (best == nullptr || v.loss < best->loss) best = &v;
  }
  if (best == nullptr || first == best) return "Loss while tuning";
  return fmt::format("Validation loss fell from {} to {}, lowest after step {:.0f}",
                     LossText(first->loss), LossText(best->loss), best->step);
}

}  // namespace

std::string LossSection(const RunReport& r) {
  std::map<int, std::vector<Point>> train, valid;
  for (size_t i = 0; i < r.train.size(); ++i) train[r.train_exit[i]].push_back(r.train[i]);
  for (const ValidPoint& v : r.valid) {
    if (std::isfinite(v.loss)) valid[v.exit].push_back({v.step, v.loss});
  }
  if (train.empty() && valid.empty()) return "";
  // Where the uppermost exit is the model's own output, one curve is enough.
  if (const auto whole = valid.find(-1);
      whole != valid.end() && valid.size() > 1 &&
      std::ranges::equal(whole->second, valid.rbegin()->second, SamePoint)) {
    valid.erase(whole);
  }
  const bool exits = train.size() > 1 || valid.size() > 1;
  LineChart chart;
  chart.label = "Loss over the steps of the run";
  chart.x_label = "step (optimizer updates)";
  chart.y_label = "loss (nats per learned token)";
  // A loss that falls to a fraction of a hundredth is a flat line on an ordinary axis.
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (const auto& [exit, points] : valid) {
    for (const Point& p : points) {
      if (p.y > 0) low = std::min(low, p.y);
      high = std::max(high, p.y);
    }
  }
  chart.log_y = high > 50 * low;
  chart.from_zero = !chart.log_y;
  if (chart.log_y) chart.y_label += ", logarithmic";
  for (const auto& [exit, points] : train) {
    const std::string suffix = exit < 0 ? "" : ", " + ExitName(exit);
    chart.lines.push_back(
        {"each step" + suffix, ExitColor(exit), Mark::kFaint, Thin(points, kMaxPoints)});
    chart.lines.push_back({"training, running mean" + suffix, ExitColor(exit), Mark::kLine,
                           Thin(Smooth(points, 0.9), kMaxPoints)});
  }
  for (const auto& [exit, points] : valid) {
    // Beside exits with colours of their own the model as a whole is drawn in ink.
    const int whole = exits ? kInkColor : 1;
    chart.lines.push_back({exit < 0 ? "validation" : "validation, " + ExitName(exit),
                           exit < 0 ? whole : ExitColor(exit), Mark::kDots, points});
  }
  std::vector<LegendEntry> legend;
  for (const Series& s : chart.lines) {
    if (s.mark != Mark::kFaint || train.size() == 1) legend.push_back(Legend(s));
  }
  return Section(
      "Learning", "",
      Figure(LossTitle(r),
             exits
                 ? "Lower is better. Every exit has its own colour and is tuned in its own steps; "
                   "dots are on examples that are never trained on."
                 : "Lower is better. Validation is on examples that are never trained on: where it "
                   "rises while training falls, the model learns by heart.",
             legend, [&](double width) { return DrawLines(chart, width); }));
}

std::string ExitsSection(const RunReport& r) {
  const Json& exits = At(r.run, {"exits"});
  const Json& vote = At(r.run, {"vote"});
  if (!exits.is_array() || exits.size() < 2) return "";
  BarChart chart;
  chart.label = "Held-out loss of each exit and of each rule of voting";
  chart.x_label = "loss (nats per learned token)";
  const auto add = [&](const std::string& name, double loss, int color) {
    if (std::isfinite(loss)) chart.bars.push_back({name, loss, LossText(loss), color});
  };
  const std::string chosen = TextAt(vote, {"rule"});
  for (size_t e = 0; e < exits.size() && e < kMaxExits; ++e) {
    const double layers = NumberAt(exits[e], {"layers"}, kNone);
    add(std::isfinite(layers) ? fmt::format("exit after {:.0f} layers", layers)
                              : ExitName(static_cast<int>(e)),
        NumberAt(exits[e], {"loss"}, kNone), chosen == fmt::format("single:{}", e) ? 1 : 0);
  }
  if (const Json& rules = At(vote, {"rules"}); rules.is_object()) {
    for (const auto& [name, score] : rules.items()) {
      if (name.starts_with("single") || chart.bars.size() > 2 * kMaxExits) continue;
      add(fmt::format("vote: {}", name), NumberAt(score, {"loss"}, kNone), name == chosen ? 1 : 7);
    }
  }
  if (chart.bars.empty()) return "";
  std::string title = "Every exit of the model by itself";
  const double gain = NumberAt(vote, {"gain_over_best_exit", "mean"}, kNone);
  const double low = NumberAt(vote, {"gain_over_best_exit", "low"}, kNone);
  if (chosen.starts_with("single")) {
    title = "One exit alone was as good as any vote, and decides";
  } else if (std::isfinite(gain)) {
    title = fmt::format("Voting by '{}' {} the best exit alone, by {:.2g} nats", chosen,
                        low > 0     ? "beats"
                        : gain >= 0 ? "is level with"
                                    : "falls behind",
                        gain);
  }
  return Section("Exits and vote", "",
                 Figure(title,
                        "Shorter is better; measured on held-out data that the vote was not fitted "
                        "to.",
                        {{"exits alone", 0, Mark::kLine, true},
                         {"chosen", 1, Mark::kLine, true},
                         {"other rules", 7, Mark::kLine, true}},
                        [&](double width) { return DrawBars(chart, width); }));
}

}  // namespace edgewise::report
