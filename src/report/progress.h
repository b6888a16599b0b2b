// Turns the events of a run into lines for people.
//
//   step 120/1000  12%  loss 1.840 (ema 1.910)  lr 1.9e-4  412 tok/s  mem 1.62/2.00 GiB  eta 14:03
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "report/metrics.h"

namespace edgewise::report {

enum class ProgressStyle {
  kLive,   // one line of a terminal, rewritten
  kPlain,  // a new line every few seconds: files, CI, TERM=dumb
  kQuiet,  // only warnings
};

// What the caller found out about where standard error goes.
struct ProgressEnvironment {
  bool is_terminal = false;
  bool ci = false;           // $CI is set and not empty
  bool no_color = false;     // $NO_COLOR is set and not empty
  bool dumb = false;         // $TERM is "dumb" or not set
  bool quiet = false;        // --quiet
  bool no_progress = false;  // --no-progress: plain lines
  int columns = 80;
};

struct ProgressOptions {
  ProgressStyle style = ProgressStyle::kPlain;
  bool color = false;
  double plain_interval_s = 10;
  double live_interval_s = 0.2;
  int columns = 80;                // live lines are cut to this width
  int64_t memory_limit_bytes = 0;  // 0: none to show
};

ProgressOptions ChooseProgress(const ProgressEnvironment& environment);

// Not thread-safe. `write` gets text as it should appear, line ends and control codes included.
class Progress {
 public:
  Progress(ProgressOptions options, std::function<void(std::string_view)> write)
      : options_(options), write_(std::move(write)) {}

  void On(const Event& event);
  // Ends a live line; call before other output goes to the same place.
  void Finish();

  // The line of one step without control codes; `ema` and `eta_s` (negative: unknown) as tracked.
  // Where it is wider than `columns` the learning rate goes first, then the mean of the loss.
  static std::string StepLine(const StepEvent& e, double ema, double eta_s, int64_t memory_limit,
                              int columns = 1000);

 private:
  void Line(std::string_view text, const char* color);
  void OnStep(const StepEvent& e);

  ProgressOptions options_;
  std::function<void(std::string_view)> write_;
  bool open_line_ = false;  // a live line without its end
  double last_print_s_ = -1e300;
  // Exponential mean of the loss, corrected for its start at zero.
  double ema_ = 0, ema_weight_ = 0;
  int64_t first_step_ = -1;
  double first_elapsed_s_ = 0;
};

// "1.9e-4": two significant digits, shortest exponent.
std::string FormatRate(double value);

}  // namespace edgewise::report
