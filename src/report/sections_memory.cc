// What the run took: memory over time, and what was predicted of memory and time.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/units.h"
#include "report/charts.h"
#include "report/json_path.h"
#include "report/section_parts.h"
#include "report/sections.h"

namespace edgewise::report {
namespace {

constexpr size_t kMaxPoints = 400;
constexpr double kMiB = 1 << 20;

// What stands in the legend, by the order of kMemoryCategories; the rest of what is resident last.
constexpr const char* kMeanings[] = {"weights of the base", "adapter",     "gradients",
                                     "optimizer state",     "activations", "working buffers",
                                     "program and data"};
constexpr size_t kCategories = std::size(kMeanings), kRest = kCategories - 1;
static_assert(kRest == std::size(kMemoryCategories));

std::string Size(double bytes) { return FormatBytes(static_cast<int64_t>(bytes)); }

using Pile = std::array<std::vector<Point>, kCategories>;

void AddPile(const Pile& pile, LineChart* chart, std::vector<LegendEntry>* legend) {
  for (size_t c = 0; c < kCategories; ++c) {
    double most = 0;
    for (const Point& p : pile[c]) most = std::max(most, p.y);
    if (most <= 0) continue;
    const int color = static_cast<int>(c);
    chart->stacked.push_back({kMeanings[c], color, Mark::kLine, Thin(pile[c], kMaxPoints)});
    legend->push_back(
        {fmt::format("{}: {}", kMeanings[c], Size(most * kMiB)), color, Mark::kLine, true});
  }
}

// Buffers are known to the byte. Mapped weights are resident as far as they were touched: what is
// left of the resident memory when buffers and the program are taken off.
Pile HeldPile(const RunReport& r) {
  Pile pile;
  const double program = NumberAt(r.run, {"plan", "memory", "runtime"}, 0);
  for (const HeldPoint& p : r.held) {
    double buffers = 0;
    for (size_t c = 1; c < kRest; ++c) buffers += p.bytes[c];
    const double weights = std::clamp(p.rss - buffers - program, 0.0, p.bytes[0]);
    pile[0].push_back({p.step, weights / kMiB});
    for (size_t c = 1; c < kRest; ++c) pile[c].push_back({p.step, p.bytes[c] / kMiB});
    pile[kRest].push_back({p.step, std::max(0.0, p.rss - buffers - weights) / kMiB});
  }
  return pile;
}

Pile PlannedPile(const RunReport& r) {
  Pile pile;
  for (size_t c = 0; c < kCategories; ++c) {
    const char* key = c == kRest ? "runtime" : kMemoryCategories[c];
    const double bytes = NumberAt(r.run, {"plan", "memory", key}, 0);
    pile[c] = {{r.rss.front().x, bytes / kMiB}, {r.rss.back().x, bytes / kMiB}};
  }
  return pile;
}

}  // namespace

std::string MemorySection(const RunReport& r) {
  if (r.rss.size() < 2) return "";
  LineChart chart;
  chart.label = "Resident memory over the steps of the run";
  chart.x_label = "step (optimizer updates)";
  chart.y_label = "resident memory (MiB)";
  std::vector<LegendEntry> legend;
  const bool measured_parts = r.held.size() >= 2;
  AddPile(measured_parts ? HeldPile(r) : PlannedPile(r), &chart, &legend);
  std::vector<Point> measured;
  double peak = NumberAt(r.run, {"peak_rss_bytes"}, 0);
  for (const Point& p : r.rss) {
    measured.push_back({p.x, p.y / kMiB});
    peak = std::max(peak, p.y);
  }
  chart.lines.push_back({"measured", kInkColor, Mark::kLine, Thin(measured, kMaxPoints)});
  legend.push_back({"all that is resident, measured", kInkColor, Mark::kLine, false});
  const double first = r.rss.front().x, last = r.rss.back().x;
  const auto level = [&](const std::string& name, double bytes, int color) {
    chart.lines.push_back(
        {name, color, Mark::kDashed, {{first, bytes / kMiB}, {last, bytes / kMiB}}});
    legend.push_back({name + ": " + Size(bytes), color, Mark::kDashed, false});
  };
  const double predicted = NumberAt(r.run, {"plan", "predicted_peak_bytes"}, 0);
  if (measured_parts && predicted > 0) level("predicted peak", predicted, 7);
  const double limit = NumberAt(r.run, {"plan", "memory_limit_bytes"}, 0);
  std::string title = fmt::format("At most {} were resident", Size(peak));
  std::string note = measured_parts
                         ? "Surfaces: the buffers that the run held after each step, by purpose. "
                         : "Surfaces: what was predicted before the start, by category. ";
  if (limit > 0) {
    title += fmt::format("; the limit was {}", Size(limit));
    // A limit far above everything would squeeze the rest of the chart flat.
    if (limit < 4 * peak) {
      level("limit", limit, 4);
    } else {
      note += "The limit lies far above the chart. ";
    }
  }
  return Section("Memory", "", Figure(title, note, legend, [&](double width) {
                   return DrawLines(chart, width);
                 }));
}

std::string PredictionSection(const RunReport& r) {
  ScoreTable table;
  table.header = {"", "predicted", "measured", "difference"};
  double worst = 0;
  const auto add = [&](const char* name, double predicted, double measured, const auto& show) {
    if (!(predicted > 0) || !(measured > 0)) return;
    const double off = predicted / measured - 1;
    worst = std::max(worst, std::abs(off));
    table.rows.push_back(
        {{name, show(predicted), show(measured), fmt::format("{:+.1f}%", 100 * off)}, false});
  };
  const auto number = [&](std::initializer_list<const char*> path) {
    return NumberAt(r.run, path, 0);
  };
  const auto size = [](double bytes) { return Size(bytes); };
  const auto time = [](double seconds) { return FormatSeconds(seconds); };
  const auto step = [](double seconds) { return fmt::format("{:.1f} ms", 1e3 * seconds); };
  add("peak memory", number({"plan", "predicted_peak_bytes"}), number({"peak_rss_bytes"}), size);
  double parts = 0;
  if (const Json& categories = At(r.run, {"memory", "categories"}); categories.is_object()) {
    for (const auto& [name, bytes] : categories.items()) {
      if (bytes.is_number()) parts += bytes.get<double>();
    }
  }
  add("memory, its parts added up", parts, number({"memory", "peak_bytes"}), size);
  add("time of the run", number({"plan", "predicted_seconds"}), number({"seconds"}), time);
  add("time of a step", number({"prediction", "step_seconds"}),
      number({"measured", "step_seconds"}), step);
  add("activations written to disk in a step", number({"plan", "predicted_step_written_bytes"}),
      number({"activations_written_step_bytes"}), size);
  if (table.rows.empty()) return "";
  std::string text =
      fmt::format("What was said before the first step, and what came of it; {} is within {:.0f}%.",
                  table.rows.size() > 1 ? "everything" : "it", std::ceil(100 * worst - 1e-6));
  if (const double cut = number({"plan", "split_tokens"}); cut > 0) {
    text += fmt::format(" Micro-batches were cut between documents to {:.0f} tokens.", cut);
  }
  if (const Json& form = At(r.run, {"plan", "recomputed"}); form == "mlp" || form == "layer") {
    text +=
        fmt::format(" {} computed again in the backward pass, {:.0f} tokens at a time in an MLP.",
                    form == "mlp" ? "Activations of the MLPs were" : "Activations were",
                    number({"plan", "mlp_tokens"}));
  }
  return Section("Predicted and measured", text, table.Html());
}

}  // namespace edgewise::report
