// Everything a report shows, as read from the files of a run. Files may be absent, from another
// version or damaged: whatever is not there is left out of the report, never guessed.
#pragma once

#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/env.h"
#include "io/json.h"
#include "report/svg.h"

namespace edgewise::report {

// One prompt and what the model made of it. "" where it was not asked.
struct ReportSample {
  std::string prompt, wanted, before, after;
  bool trained = false;  // a row of the training file
};

// What happened at a validation, or to one exit of several.
struct ValidPoint {
  double step = 0, loss = 0;
  int exit = -1;  // -1: the model's own output
};

// Bytes of a run's buffers after a step, in the order of kMemoryCategories, and what the process
// had resident.
inline constexpr const char* kMemoryCategories[] = {"weights",   "trainable",   "gradients",
                                                    "optimizer", "activations", "scratch"};
struct HeldPoint {
  double step = 0, rss = 0;
  double bytes[std::size(kMemoryCategories)] = {};
};

struct RunReport {
  std::string name;             // of the run's directory
  Json run;                     // edgewise.json
  std::vector<Point> train;     // step, loss
  std::vector<int> train_exit;  // of each of `train`: the exit that was tuned, or -1
  std::vector<Point> rss;       // step, bytes resident
  std::vector<HeldPoint> held;  // buffers by purpose, where the run recorded them
  std::vector<Point> speed;     // step, tokens per second
  std::vector<ValidPoint> valid;
  std::vector<std::string> warnings;  // of the run, in order
  std::vector<ReportSample> samples;
  // Of the packed base's edgewise.json, a sensitivity table, a plan: null when there is none.
  Json base, sensitivity, plan;
  // What `edgewise eval --json` said before and after.
  Json before, after;
  // Other runs to hold this one against: name and their edgewise.json, and their scores if known.
  struct Other {
    std::string name;
    Json run, score;
  };
  std::vector<Other> others;
};

// edgewise.json, metrics.jsonl and samples.json of a run, and edgewise.json of its base when that
// is a packed one beside which it still lies. Error: no readable edgewise.json in `dir`.
Result<RunReport> ReadRun(Env& env, const std::string& dir);

// What the page shows of what `edgewise eval --json` said: "accuracy", "perplexity" or "loss",
// whichever there is first. Null: it is no such score.
const char* ScoreKey(const Json& score);

// samples.json of a run: [{"prompt", "wanted", "before", "after", "trained"?}, ...].
inline constexpr const char* kSamplesName = "samples.json";
OrderedJson SamplesToJson(const std::vector<ReportSample>& samples);
std::vector<ReportSample> SamplesFromJson(const Json& json);

// The whole page: one HTML file that loads nothing.
std::string RenderReport(const RunReport& report);

// A single SVG file: one answer before and after, and the scores.
std::string RenderPicture(const RunReport& report);

}  // namespace edgewise::report
