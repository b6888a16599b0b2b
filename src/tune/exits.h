// Where a model exits and which layers each exit's window holds (Edge-LLM, arXiv 2406.15758:
// adaptive layer tuning).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace edgewise::tune {

// Exit after layer `end` (layers [0, end) run); its window is the layers [begin, end).
struct Exit {
  int64_t begin = 0;
  int64_t end = 0;
};

enum class WindowLayout {
  kTiled,   // each window lies below its own exit and begins where the one below ends
  kRising,  // all windows reach up to the model's own end; each begins higher than the one before:
            // lower layers settle first and are frozen (as in FreezeOut, arXiv 1706.04983)
};
Result<WindowLayout> ParseWindowLayout(std::string_view name);  // "tiled", "rising"
std::string_view WindowLayoutName(WindowLayout layout);

struct ExitOptions {
  int64_t exits = 0;   // number of windows; 0: min(4, layers)
  int64_t window = 0;  // kTiled: layers per window; 0: from the previous exit on
  WindowLayout layout = WindowLayout::kTiled;
  int64_t first_layer = 0;  // layers below are never tuned
};

// kTiled: exit k of T after layer round(k L / T), k = 1..T. kRising: window k begins where the
// tiled one does. With a first layer f the layers [f, L) are cut instead. Error: more exits than
// layers, a window larger than the layers below its exit.
Result<std::vector<Exit>> LayOutExits(int64_t layers, const ExitOptions& options);

// Into how many tiled windows the layers can be cut so that the largest one is smaller than with
// fewer of them: counts above that of `options`, at most `most`, rising. Each is the first with its
// largest window. Empty: none, or another layout.
std::vector<int64_t> SmallerWindows(int64_t layers, const ExitOptions& options, int64_t most);
// Layers of the largest.
int64_t LargestWindow(const std::vector<Exit>& exits);

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
    // kSequential: relative lengths of the phases, one per exit; empty: all equal.
    std::vector<double> shares{};
    // kAdaptive tunes one exit for this many steps before it looks again.
    int64_t turn_steps = 16;
  };

  explicit ExitSchedule(Options options);

  int ExitAt(int64_t step);
  // kSequential: the steps [first, second) in which `step`'s exit is tuned; else the whole run.
  std::pair<int64_t, int64_t> Phase(int64_t step) const;
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
  int64_t PhaseBegin(int exit) const;

  Options options_;
  int current_ = 0;           // kAdaptive: the exit whose turn it is
  int64_t turn_ = -1;         // index of that turn
  std::vector<double> loss_;  // last reported per exit; NaN: none
  std::vector<double> gain_;  // fall per predicted second in its last turn; infinity: untried
};

}  // namespace edgewise::tune
