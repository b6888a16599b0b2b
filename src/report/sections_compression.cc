// What the base was made of, and how the work is laid out.
#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "report/charts.h"
#include "report/json_path.h"
#include "report/section_parts.h"
#include "report/sections.h"

namespace edgewise::report {
namespace {

constexpr size_t kMaxLayers = 512, kMaxSpans = 4000;

std::string ErrorText(double relative) {
  return relative >= 1e-3 ? fmt::format("{:.2g}%", 100 * relative)
                          : fmt::format("{:.1e}", relative);
}

// Rows of a heat map from one list of measures a layer ("quantized" or "pruned").
void AddMeasures(const Json& table, const char* key, HeatMap* map) {
  const Json& layers = At(table, {"layers"});
  const Json& first = At(layers[0], {key});
  if (!first.is_array()) return;
  for (size_t i = 0; i < first.size() && i < 32; ++i) {
    const bool pruned = std::string_view(key) == "pruned";
    const double sparsity =
        NumberAt(first[i], {"option", "sparsity"}, NumberAt(first[i], {"sparsity"}, 0));
    const double bits = NumberAt(first[i], {"option", "bits"}, NumberAt(first[i], {"bits"}, 0));
    const std::string name =
        pruned ? fmt::format("{:.0f}% zeros", 100 * sparsity) : fmt::format("{:.0f} bit", bits);
    std::vector<HeatMap::Cell> row;
    for (size_t l = 0; l < layers.size() && l < kMaxLayers; ++l) {
      const Json& measures = At(layers[l], {key});
      const double value = measures.is_array() && i < measures.size()
                               ? NumberAt(measures[i], {"relative"}, kNone)
                               : kNone;
      row.push_back({value, "", fmt::format("layer {}, {}: {}", l, name, ErrorText(value))});
    }
    map->rows.push_back(name);
    map->cells.push_back(std::move(row));
  }
}

std::vector<std::string> Numbers(size_t count) {
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) out.push_back(std::to_string(i));
  return out;
}

// The five shades between the lowest and the highest value, for the legend.
std::string SensitivityNote(const HeatMap& map) {
  double lo = std::numeric_limits<double>::infinity(), hi = 0;
  for (const auto& row : map.cells) {
    for (const HeatMap::Cell& cell : row) {
      if (!(cell.value > 0)) continue;
      lo = std::min(lo, cell.value);
      hi = std::max(hi, cell.value);
    }
  }
  if (hi <= 0) return "";
  return fmt::format(
      "Squared error of a layer's output relative to the output itself, from {} (palest) to {} "
      "(strongest), on a logarithmic scale. Point at a cell for its value.",
      ErrorText(lo), ErrorText(hi));
}

std::string SensitivityTitle(const HeatMap& map) {
  // By the row in the middle of the quantised ones: extremes say little about the layers.
  for (size_t r = 0; r < map.rows.size(); ++r) {
    if (map.rows[r] != "4 bit") continue;
    size_t worst = 0, best = 0;
    for (size_t l = 0; l < map.cells[r].size(); ++l) {
      if (map.cells[r][l].value > map.cells[r][worst].value) worst = l;
      if (map.cells[r][l].value < map.cells[r][best].value) best = l;
    }
    return fmt::format("Layer {} suffers most from 4 bits, layer {} least", worst, best);
  }
  return "How much each layer suffers";
}

const Json& Linear(const Json& layers, size_t layer, const std::string& name) {
  return At(layers[layer], {"linears", name.c_str()});
}

}  // namespace

std::string SensitivitySection(const RunReport& r) {
  const Json& layers = At(r.sensitivity, {"layers"});
  if (!layers.is_array() || layers.empty()) return "";
  HeatMap map;
  map.label = "Output error of each layer for each width and share of zeros";
  map.x_label = "layer (0 is next to the input)";
  map.y_label = "bits of a weight, or share of weights pruned";
  map.columns = Numbers(std::min(layers.size(), kMaxLayers));
  map.log = true;
  AddMeasures(r.sensitivity, "quantized", &map);
  AddMeasures(r.sensitivity, "pruned", &map);
  if (map.rows.empty()) return "";
  return Section("Sensitivity", "",
                 Figure(SensitivityTitle(map), SensitivityNote(map), {},
                        [&](double width) { return DrawHeatMap(map, width); }));
}

std::string PolicySection(const RunReport& r) {
  const Json& layers = At(r.base, {"report", "layers"});
  if (!layers.is_array() || layers.empty()) return "";
  const size_t count = std::min(layers.size(), kMaxLayers);
  HeatMap bits, zeros;
  bits.label = "Bits per weight of each linear of each layer";
  zeros.label = "Share of zeros of each linear of each layer";
  bits.x_label = zeros.x_label = "layer (0 is next to the input)";
  bits.y_label = "bits of a weight, by linear";
  zeros.y_label = "zeros (% of the weights), by linear";
  bits.columns = zeros.columns = Numbers(count);
  zeros.color = 1;
  bool pruned = false;
  for (const char* name :
       {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}) {
    std::vector<HeatMap::Cell> b, z;
    for (size_t l = 0; l < count; ++l) {
      const Json& linear = Linear(layers, l, name);
      const double width = NumberAt(linear, {"bits"}, kNone);
      const double share = NumberAt(linear, {"sparsity"}, kNone);
      const std::string tip =
          fmt::format("layer {} {}: {:.0f} bit, {:.0f}% zeros, {}", l, name, width, 100 * share,
                      FormatBytes(static_cast<int64_t>(NumberAt(linear, {"bytes"}, 0))));
      b.push_back({width, std::isfinite(width) ? fmt::format("{:.0f}", width) : "", tip});
      z.push_back({share, std::isfinite(share) ? fmt::format("{:.0f}", 100 * share) : "", tip});
      pruned = pruned || share > 0;
    }
    std::string shown = name;
    shown.resize(shown.find('_'));
    bits.rows.push_back(shown);
    zeros.rows.push_back(shown);
    bits.cells.push_back(std::move(b));
    zeros.cells.push_back(std::move(z));
  }
  const double bytes = NumberAt(r.base, {"report", "bytes"}, 0);
  const std::string title = fmt::format(
      "{:.2f} bits a weight and {:.0f}% zeros on average: {} in all",
      NumberAt(r.base, {"report", "average_bits"}, 0),
      100 * NumberAt(r.base, {"report", "sparsity"}, 0), FormatBytes(static_cast<int64_t>(bytes)));
  std::string body = Figure(
      title,
      fmt::format("Chosen by policy '{}'; the numbers in the cells are bits, stronger colour means "
                  "more of them.",
                  TextAt(r.base, {"policy", "policy"})),
      {}, [&](double width) { return DrawHeatMap(bits, width); });
  if (pruned) {
    body += Figure("Where the zeros are",
                   "Layers that the loss depends on least can lose most of their weights.", {},
                   [&](double width) { return DrawHeatMap(zeros, width); });
  }
  return Section("Compression", "", body);
}

// What `edgewise plan --json` says: a timeline of one step where it has one, else how long each
// stream is busy.
std::string ScheduleSection(const RunReport& r) {
  const double seconds = NumberAt(r.plan, {"predicted_seconds"}, 0);
  if (seconds <= 0) return "";
  const bool simulated = At(r.plan, {"simulated"}) == true;
  const std::string device = TextAt(r.plan, {"device"});
  struct Stream {
    const char *name, *key, *letter;
    int color;
  };
  static constexpr Stream kStreams[] = {{"compute", "compute_seconds", "c", 0},
                                        {"load", "load_seconds", "l", 1},
                                        {"store", "store_seconds", "s", 2}};
  const double busy = NumberAt(r.plan, {"streams", "compute_seconds"}, 0);
  const std::string title =
      fmt::format("A step takes {}, computing {:.0f}% of it{}", FormatSeconds(seconds),
                  100 * std::min(1.0, busy / seconds), simulated ? " (simulated)" : "");
  const std::string note =
      (device.empty() ? std::string() : fmt::format("Predicted for {}. ", Shorten(device, 100))) +
      "Reading and writing cost nothing where they hide behind computing.";
  Timeline timeline;
  timeline.label = "What each stream does during a step";
  timeline.x_label = "time (s)";
  const Json& spans = At(r.plan, {"timeline"});
  for (const Stream& stream : kStreams) {
    Timeline::Lane lane{stream.name, {}};
    for (size_t i = 0; spans.is_array() && i < spans.size() && i < kMaxSpans; ++i) {
      if (TextAt(spans[i], {"stream"}) != stream.letter) continue;
      const double begin = NumberAt(spans[i], {"begin"}, 0), end = NumberAt(spans[i], {"end"}, 0);
      lane.spans.push_back(
          {begin, end, stream.color,
           fmt::format("{}: {:.4g} to {:.4g} s", TextAt(spans[i], {"name"}), begin, end)});
    }
    if (!lane.spans.empty()) timeline.lanes.push_back(std::move(lane));
  }
  if (!timeline.lanes.empty()) {
    return Section("Schedule", "", Figure(title, note, {}, [&](double width) {
                     return DrawTimeline(timeline, width);
                   }));
  }
  BarChart bars;
  bars.label = "How long each stream is busy during a step";
  bars.x_label = "time (s)";
  for (const Stream& stream : kStreams) {
    const double time = NumberAt(r.plan, {"streams", stream.key}, 0);
    bars.bars.push_back({stream.name, time, FormatSeconds(time), stream.color});
  }
  return Section("Schedule", "",
                 Figure(title, note, {}, [&](double width) { return DrawBars(bars, width); }));
}

}  // namespace edgewise::report
