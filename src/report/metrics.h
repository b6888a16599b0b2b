// What happens during a run, as plain events, and metrics.jsonl, the file that keeps them.
//
// metrics.jsonl: one JSON object per line, each with "schema":1, "event" and "step" (steps done
// when it happened). Keys are never renamed within a schema; readers ignore keys they do not know.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "io/env.h"

namespace edgewise::report {

// Bytes of the buffers that a run holds, by purpose. What the process has resident beyond them is
// the program, its libraries and the data.
struct HeldMemory {
  int64_t weights = 0;    // of the base; mapped ones count whole, touched or not
  int64_t trainable = 0;  // values that are not part of the base
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t activations = 0;  // kept from forward to backward
  int64_t scratch = 0;      // working buffers
  bool operator==(const HeldMemory&) const = default;
};

// One optimiser step. "event":"step".
struct StepEvent {
  int64_t step = 0;  // steps done, this one included
  int64_t total_steps = 0;
  double epoch = 0;  // passes over the training set so far
  double loss = 0;   // mean over the supervised tokens of the step
  double lr = 0;
  double grad_norm = 0;           // before clipping
  int64_t supervised_tokens = 0;  // with a label, in this step
  int64_t tokens = 0;             // all, in this step
  int64_t tokens_total = 0;       // all, since the run began
  double tokens_per_s = 0;        // of this step
  double elapsed_s = 0;           // since this process began the run
  int64_t rss_bytes = 0;
  HeldMemory memory = {};
  int exit = -1;  // the exit whose window was tuned, from 0; -1: the model has but one output
  bool skipped = false;  // not applied: loss or gradient was not finite
  int64_t skipped_total = 0;
};

// A validation. "event":"valid".
struct ValidEvent {
  int64_t step = 0;
  double loss = 0;  // mean over supervised tokens
  int64_t tokens = 0;
  double seconds = 0;
  bool best = false;                           // lower than every one before
  std::vector<double> exits = {};              // loss of every exit alone, if there are several
  std::optional<double> score = std::nullopt;  // of the caller's own evaluation, if it has one
  std::string score_name = {};
};

// A checkpoint was written, or could not be. "event":"save".
struct SaveEvent {
  int64_t step = 0;
  std::string path = {};
  double seconds = 0;
  std::string error = {};  // empty: written
};

// Start, resume, end. "event":"start" | "resume" | "end".
struct RunEvent {
  enum class Kind { kStart, kResume, kEnd } kind = Kind::kStart;
  int64_t step = 0;
  int64_t total_steps = 0;
  std::string note = {};  // for people: why it ended, from where it resumed
};

// Something that the user should read; the run goes on. "event":"warning".
struct WarningEvent {
  int64_t step = 0;
  std::string message = {};
};

using Event = std::variant<StepEvent, ValidEvent, SaveEvent, RunEvent, WarningEvent>;

inline constexpr int kMetricsSchema = 1;

// One line of metrics.jsonl, without the line end. Numbers that are not finite are null.
std::string EventJson(const Event& event);

class MetricsFile {
 public:
  // Opens `path` for appending. `keep_steps` >= 0: first drops every line of a later step, and a
  // torn last line, as left by a process that was killed after its last checkpoint; < 0: starts an
  // empty file. Errors: not readable, not writable, or not a metrics file.
  static Result<std::unique_ptr<MetricsFile>> Open(Env& env, std::string path, int64_t keep_steps);

  // On error the line is lost; the file is cut back to its last whole line, at once or before the
  // next line, so that it is worth trying again.
  Status Append(const Event& event);
  Status Sync();

 private:
  MetricsFile(Env& env, std::string path) : env_(env), path_(std::move(path)) {}
  Env& env_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;
  int64_t size_ = 0;   // of the whole lines
  bool torn_ = false;  // more than those may be there
};

}  // namespace edgewise::report
