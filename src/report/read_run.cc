#include <algorithm>

#include "report/json_path.h"
#include "report/run_report.h"

namespace edgewise::report {
namespace {

constexpr int64_t kMaxBytes = int64_t{256} << 20;
constexpr size_t kMaxWarnings = 50, kMaxSamples = 50;
constexpr JsonLimits kLineLimits{1 << 16, 8};

Result<Json> ReadJson(Env& env, const std::string& path) {
  EW_ASSIGN(const std::string text, env.ReadFile(path, kMaxBytes));
  return ParseJson(text).WithContext(path);
}

void TakeEvent(const Json& json, RunReport* report) {
  const std::string event = TextAt(json, {"event"});
  const double step = NumberAt(json, {"step"}, 0);
  const int exit = static_cast<int>(std::clamp(NumberAt(json, {"exit"}, -1), -1.0, 1000.0));
  if (event == "step") {
    report->train.push_back({step, NumberAt(json, {"loss"}, std::nan(""))});
    report->train_exit.push_back(exit);
    const double rss = NumberAt(json, {"rss_bytes"}, 0);
    if (rss > 0) report->rss.push_back({step, rss});
    if (const Json& memory = At(json, {"memory"}); rss > 0 && memory.is_object()) {
      HeldPoint held{.step = step, .rss = rss};
      for (size_t c = 0; c < std::size(kMemoryCategories); ++c) {
        held.bytes[c] = std::max(0.0, NumberAt(memory, {kMemoryCategories[c]}, 0));
      }
      report->held.push_back(held);
    }
    const double speed = NumberAt(json, {"tokens_per_s"}, 0);
    if (speed > 0) report->speed.push_back({step, speed});
  } else if (event == "valid") {
    report->valid.push_back({step, NumberAt(json, {"valid_loss"}, std::nan("")), exit});
    const Json& exits = At(json, {"exits"});
    if (!exits.is_array()) return;
    for (size_t e = 0; e < exits.size(); ++e) {
      const double loss = exits[e].is_number() ? exits[e].get<double>()
                                               : NumberAt(exits[e], {"loss"}, std::nan(""));
      report->valid.push_back({step, loss, static_cast<int>(e)});
    }
  } else if (event == "warning" && report->warnings.size() < kMaxWarnings) {
    report->warnings.push_back(TextAt(json, {"message"}));
  }
}

// A torn last line is what a killed process leaves; a bad line in the middle is left out as well.
void TakeMetrics(const std::string& text, RunReport* report) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    Result<Json> line = ParseJson(std::string_view(text).substr(at, end - at), kLineLimits);
    if (line.ok()) TakeEvent(*line, report);
    at = end + 1;
  }
}

}  // namespace

OrderedJson SamplesToJson(const std::vector<ReportSample>& samples) {
  OrderedJson out = OrderedJson::array();
  for (const ReportSample& s : samples) {
    out.push_back(
        {{"prompt", s.prompt}, {"wanted", s.wanted}, {"before", s.before}, {"after", s.after}});
    if (s.trained) out.back()["trained"] = true;
  }
  return out;
}

std::vector<ReportSample> SamplesFromJson(const Json& json) {
  std::vector<ReportSample> out;
  if (!json.is_array()) return out;
  for (const Json& s : json) {
    if (out.size() == kMaxSamples) break;
    out.push_back({TextAt(s, {"prompt"}), TextAt(s, {"wanted"}), TextAt(s, {"before"}),
                   TextAt(s, {"after"}), At(s, {"trained"}) == true});
  }
  return out;
}

Result<RunReport> ReadRun(Env& env, const std::string& dir) {
  RunReport report;
  std::string trimmed = dir;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  report.name = BaseName(trimmed);
  const std::string run_file = JoinPath(dir, "edgewise.json");
  if (!env.Exists(run_file)) {
    return NotFound(dir + ": not a run of 'edgewise tune' (no edgewise.json in it)");
  }
  EW_ASSIGN(report.run, ReadJson(env, run_file));
  if (!report.run.is_object()) return BadInput(run_file + ": not a JSON object");

  if (Result<std::string> text = env.ReadFile(JoinPath(dir, "metrics.jsonl"), kMaxBytes);
      text.ok()) {
    TakeMetrics(*text, &report);
  }
  if (Result<Json> json = ReadJson(env, JoinPath(dir, kSamplesName)); json.ok()) {
    report.samples = SamplesFromJson(*json);
  }
  const std::string base = TextAt(report.run, {"base", "path"});
  if (base.empty()) return report;
  if (Result<Json> json = ReadJson(env, JoinPath(base, "edgewise.json")); json.ok()) {
    if (TextAt(*json, {"kind"}) == "packed base") report.base = std::move(*json);
  }
  // Where `edgewise compress` leaves the table that its policy came from.
  if (Result<Json> json = ReadJson(env, base + "-sensitivity.json"); json.ok()) {
    report.sensitivity = std::move(*json);
  }
  return report;
}

}  // namespace edgewise::report
