// Where a model exits and which layers each exit's window holds (Edge-LLM, arXiv 2406.15758:
// adaptive layer tuning).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise::tune {

// Exit after layer `end` (layers [0, end) run); its window is the layers [begin, end).
struct Exit {
  int64_t begin = 0;
  int64_t end = 0;
};

struct ExitOptions {
  int64_t exits = 0;   // 0: min(4, layers)
  int64_t window = 0;  // layers per window; 0: from the previous exit on
};

// Exit k of T after layer round(k L / T), k = 1..T. Error: more exits than layers, a window larger
// than the layers below its exit.
Result<std::vector<Exit>> LayOutExits(int64_t layers, const ExitOptions& options);

// Which exit a step tunes.
enum class ExitOrder {
  kSequential,  // phases of equal length, shallow to deep (released code)
  kCyclic,      // 0, 1, .., T-1, 0, ...
  kRandom,      // uniform, a function of (seed, step)
  kAdaptive,    // the exit whose held-out loss fell most per predicted second
};
Result<ExitOrder> ParseExitOrder(std::string_view name);
std::string_view ExitOrderName(ExitOrder order);

// Deterministic: what it answers depends on its options, the step, and the held-out losses reported
// so far (which are part of a checkpoint), never on measured time.
class ExitSchedule {
 public:
  struct Options {
    ExitOrder order = ExitOrder::kSequential;
    int exits = 1;
    int64_t total_steps = 0;
    uint64_t seed = 0;
    std::vector<double>
        predicted_seconds{};  // of one step per exit, for kAdaptive; empty: all equal
    // kAdaptive tunes one exit for this many steps before it looks again.
    int64_t turn_steps = 16;
  };

  explicit ExitSchedule(Options options);

  int ExitAt(int64_t step);
  // kAdaptive: the loss of `exit` on held-out data after `step`. Report before the first step and
  // after every turn of that exit.
  void ReportLoss(int exit, int64_t step, double loss);
  // True when the schedule wants the held-out loss of the exit tuned last before `step`.
  bool WantsLoss(int64_t step) const;

  // For checkpoints: everything that ReportLoss and ExitAt have changed.
  std::vector<double> SaveState() const;
  Status RestoreState(const std::vector<double>& state);

 private:
  int PickAdaptive() const;

  Options options_;
  int current_ = 0;           // kAdaptive: the exit whose turn it is
  int64_t turn_ = -1;         // index of that turn
  std::vector<double> loss_;  // last reported per exit; NaN: none
  std::vector<double> gain_;  // fall per predicted second in its last turn; infinity: untried
};

}  // namespace edgewise::tune
