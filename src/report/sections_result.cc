// What came out of the run, and where it comes from.
#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "report/charts.h"
#include "report/json_path.h"
#include "report/section_parts.h"
#include "report/sections.h"

namespace edgewise::report {
namespace {

constexpr size_t kShownSamples = 8, kSampleBytes = 1200;

struct Tile {
  std::string name, value, detail;
};

// "before -> after" of whatever `edgewise eval` measured.
void AddScore(const RunReport& r, std::vector<Tile>* tiles) {
  const char* key = ScoreKey(r.after);
  const double after = key != nullptr ? NumberAt(r.after, {key}, kNone) : kNone;
  if (!std::isfinite(after)) return;
  const double before = NumberAt(r.before, {key}, kNone);
  const bool share = std::string_view(key) == "accuracy";
  const auto show = [&](double v) { return share ? Percent(v) : LossText(v); };
  Tile tile;
  const double n = NumberAt(r.after, {"n"}, 0);
  tile.name =
      share ? TextAt(r.after, {"task"}) == "exact-match" ? "Answers exactly right" : "Accuracy"
            : key;
  tile.value = std::isfinite(before) ? show(before) + " \xE2\x86\x92 " + show(after) : show(after);
  if (n > 0) tile.detail = fmt::format("of {:.0f} held-out examples", n);
  tiles->push_back(std::move(tile));
}

std::vector<Tile> Tiles(const RunReport& r) {
  std::vector<Tile> tiles;
  AddScore(r, &tiles);
  const double start = NumberAt(r.run, {"start_valid_loss"}, kNone);
  const double best = NumberAt(r.run, {"best_valid_loss"}, kNone);
  if (std::isfinite(best)) {
    tiles.push_back({"Validation loss",
                     std::isfinite(start) ? LossText(start) + " \xE2\x86\x92 " + LossText(best)
                                          : LossText(best),
                     "nats per learned token"});
  }
  const double seconds = NumberAt(r.run, {"seconds"}, 0);
  if (seconds > 0) {
    const double predicted = NumberAt(r.run, {"plan", "predicted_seconds"}, 0);
    tiles.push_back({"Time", FormatSeconds(seconds),
                     predicted > 0 ? "predicted " + FormatSeconds(predicted) : ""});
  }
  const double peak = NumberAt(r.run, {"peak_rss_bytes"}, 0);
  if (peak > 0) {
    const double predicted = NumberAt(r.run, {"plan", "predicted_peak_bytes"}, 0);
    tiles.push_back(
        {"Peak memory", FormatBytes(static_cast<int64_t>(peak)),
         predicted > 0 ? "predicted " + FormatBytes(static_cast<int64_t>(predicted)) : ""});
  }
  const double trained = NumberAt(r.run, {"plan", "trainable_parameters"}, 0);
  const double all = NumberAt(r.run, {"plan", "base_parameters"}, 0);
  if (trained > 0) {
    tiles.push_back({"Trained weights", FormatCount(trained),
                     all > 0 ? "beside " + FormatCount(all) + " frozen ones" : ""});
  }
  const double bytes = NumberAt(r.base, {"report", "file_bytes"}, 0);
  if (bytes > 0) {
    tiles.push_back(
        {"Base on disk", FormatBytes(static_cast<int64_t>(bytes)),
         fmt::format("{:.2f} bits a weight", NumberAt(r.base, {"report", "bits_per_weight"}, 0))});
  }
  return tiles;
}

std::string Answer(const char* name, const std::string& text, const std::string& wanted) {
  const char* css = wanted.empty() ? "" : text == wanted ? " class=\"right\"" : " class=\"wrong\"";
  const char* mark = wanted.empty() ? "" : text == wanted ? "\xE2\x9C\x93 " : "\xE2\x9C\x97 ";
  const std::string shown = text.empty() ? "(nothing)" : Shorten(text, kSampleBytes);
  return Element("dt", name) + fmt::format("<dd{}>", css) + mark + Element("code", shown) + "</dd>";
}

std::string Size(double bytes) {
  return bytes > 0 ? FormatBytes(static_cast<int64_t>(bytes)) : std::string("-");
}

ScoreTable::Row RunRow(const std::string& name, const Json& run, const Json& score) {
  const double accuracy = NumberAt(score, {"accuracy"}, kNone);
  const double loss = NumberAt(run, {"best_valid_loss"}, kNone);
  const double seconds = NumberAt(run, {"seconds"}, 0);
  return {{name, TextAt(run, {"method"}),
           std::isfinite(accuracy) ? Percent(accuracy) : std::string("-"),
           std::isfinite(loss) ? LossText(loss) : std::string("-"),
           seconds > 0 ? FormatSeconds(seconds) : std::string("-"),
           Size(NumberAt(run, {"peak_rss_bytes"}, 0))},
          false};
}

}  // namespace

const char* ScoreKey(const Json& score) {
  for (const char* key : {"accuracy", "perplexity", "loss"}) {
    if (score.is_object() && score.contains(key)) return key;
  }
  return nullptr;
}

std::string SummarySection(const RunReport& r) {
  std::string body = "<dl class=\"tiles\">\n";
  for (const Tile& tile : Tiles(r)) {
    body += "<div>" + Element("dt", tile.name) + "<dd>" + EscapeHtml(tile.value) +
            (tile.detail.empty() ? "" : Element("small", tile.detail)) + "</dd></div>\n";
  }
  body += "</dl>\n";
  if (!r.warnings.empty()) {
    body +=
        "<details>" + Element("summary", fmt::format("{} warnings", r.warnings.size())) + "<ul>";
    for (const std::string& text : r.warnings) body += Element("li", Shorten(text, 400));
    body += "</ul></details>\n";
  }
  return Section("In short", "", body);
}

std::string SamplesSection(const RunReport& r) {
  if (r.samples.empty()) return "";
  std::string body;
  size_t right_before = 0, right_after = 0, shown = 0;
  bool trained = false;
  for (const ReportSample& s : r.samples) {
    right_before += s.before == s.wanted;
    right_after += s.after == s.wanted;
    trained = trained || s.trained;
    if (++shown > kShownSamples) continue;
    body += "<div class=\"sample\">" + Element("p", Shorten(s.prompt, kSampleBytes)) + "<dl>" +
            Answer("before", s.before, s.wanted) + Answer("after", s.after, s.wanted);
    if (!s.wanted.empty() && s.after != s.wanted) body += Answer("wanted", s.wanted, "");
    body += "</dl></div>\n";
  }
  return Section(
      "What it answers",
      fmt::format("Of {} requests the model answered {} exactly right before and {} after; "
                  "greedy decoding.{}",
                  r.samples.size(), right_before, right_after,
                  trained ? " They are rows of the training file." : ""),
      body);
}

std::string ComparisonSection(const RunReport& r) {
  if (r.others.empty()) return "";
  ScoreTable table;
  table.header = {"run", "method", "answers right", "valid. loss (nats)", "time", "peak memory"};
  table.rows.push_back(RunRow(r.name, r.run, r.after));
  table.rows.back().highlighted = true;
  for (const RunReport::Other& other : r.others) {
    table.rows.push_back(RunRow(other.name, other.run, other.score));
  }
  return Section("Against the alternatives",
                 "The same model, data and machine; this run comes first.", table.Html());
}

std::string ProvenanceSection(const RunReport& r) {
  std::vector<std::pair<std::string, std::string>> facts;
  const auto add = [&](const char* name, std::initializer_list<const char*> path) {
    const Json& value = At(r.run, path);
    if (value.is_null()) return;
    facts.emplace_back(name, Shorten(value.is_string() ? value.get<std::string>() : DumpJson(value),
                                     kSampleBytes));
  };
  add("Base", {"base", "path"});
  add("Base fingerprint", {"base", "fingerprint"});
  add("Training data", {"data", "train"});
  add("Validation data", {"data", "valid"});
  add("Method", {"method"});
  add("Seed", {"seed"});
  add("Steps", {"steps"});
  add("Tokens", {"tokens"});
  add("Learned tokens", {"supervised_tokens"});
  add("Result", {"exported"});
  add("of step", {"exported_step"});
  add("Processor", {"machine", "cpu"});
  add("Instruction set", {"machine", "isa"});
  add("Threads", {"machine", "threads"});
  add("Command", {"command"});
  add("edgewise", {"version"});
  std::string body = "<table class=\"facts\"><tbody>\n";
  for (const auto& [name, value] : facts) {
    body += "<tr>" + Element("th", name) + "<td>" + Element("code", value) + "</td></tr>\n";
  }
  body += "</tbody></table>\n";
  if (const Json& options = At(r.run, {"options"}); options.is_object()) {
    body += "<details>" + Element("summary", "All options that decide the arithmetic") +
            Element("pre", Shorten(DumpJson(options, 2), 20000)) + "</details>\n";
  }
  return Section("Provenance", "Enough to repeat the run and get the same bits.", body);
}

}  // namespace edgewise::report
