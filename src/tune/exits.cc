#include "tune/exits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace edgewise::tune {

Result<WindowLayout> ParseWindowLayout(std::string_view name) {
  for (WindowLayout layout : {WindowLayout::kTiled, WindowLayout::kRising}) {
    if (WindowLayoutName(layout) == name) return layout;
  }
  return InvalidArgument(fmt::format("'{}' is not a window layout; known: tiled, rising", name));
}

std::string_view WindowLayoutName(WindowLayout layout) {
  return layout == WindowLayout::kTiled ? "tiled" : "rising";
}

Result<std::vector<Exit>> LayOutExits(int64_t layers, const ExitOptions& options) {
  const int64_t first = options.first_layer;
  if (first < 0 || first >= layers) {
    return InvalidArgument(
        fmt::format("tuning from layer {} on in a model of {} layers", first, layers));
  }
  const int64_t tuned = layers - first;
  const int64_t count = options.exits > 0 ? options.exits : std::min<int64_t>(4, tuned);
  if (count > tuned) {
    return InvalidArgument(
        fmt::format("{} exits for {} layers; use at most {}", count, tuned, tuned));
  }
  if (options.window > 0 && options.layout == WindowLayout::kRising) {
    return InvalidArgument("rising windows all reach the top: leave out the window size");
  }
  std::vector<Exit> exits;
  for (int64_t k = 1; k <= count; ++k) {
    // round(k L / T), halves up, in integers.
    const auto cut = [&](int64_t i) { return first + (2 * i * tuned + count) / (2 * count); };
    int64_t begin = cut(k - 1), end = cut(k);
    if (options.layout == WindowLayout::kRising) end = layers;
    if (options.window > 0) {
      begin = end - options.window;
      if (begin < first) {
        return InvalidArgument(
            fmt::format("a window of {} layers does not fit below the exit after layer {}",
                        options.window, end));
      }
    }
    exits.push_back({begin, end});
  }
  return exits;
}

int64_t LargestWindow(const std::vector<Exit>& exits) {
  int64_t most = 0;
  for (const Exit& e : exits) most = std::max(most, e.end - e.begin);
  return most;
}

std::vector<int64_t> SmallerWindows(int64_t layers, const ExitOptions& options, int64_t most) {
  std::vector<int64_t> counts;
  const Result<std::vector<Exit>> now = LayOutExits(layers, options);
  if (!now.ok() || options.layout != WindowLayout::kTiled || options.window > 0) return counts;
  ExitOptions o = options;
  int64_t largest = LargestWindow(*now);
  for (o.exits = std::ssize(*now) + 1; o.exits <= most; ++o.exits) {
    const Result<std::vector<Exit>> exits = LayOutExits(layers, o);
    if (!exits.ok()) break;  // more than layers
    const int64_t one = LargestWindow(*exits);
    if (one >= largest) continue;
    largest = one;
    counts.push_back(o.exits);
  }
  return counts;
}

Result<ExitOrder> ParseExitOrder(std::string_view name) {
  for (ExitOrder order :
       {ExitOrder::kSequential, ExitOrder::kCyclic, ExitOrder::kRandom, ExitOrder::kAdaptive}) {
    if (ExitOrderName(order) == name) return order;
  }
  return InvalidArgument(fmt::format(
      "'{}' is not an exit schedule; known: sequential, cyclic, random, adaptive", name));
}

std::string_view ExitOrderName(ExitOrder order) {
  switch (order) {
    case ExitOrder::kSequential:
      return "sequential";
    case ExitOrder::kCyclic:
      return "cyclic";
    case ExitOrder::kRandom:
      return "random";
    case ExitOrder::kAdaptive:
      return "adaptive";
  }
  return "?";
}

ExitSchedule::ExitSchedule(Options options)
    : options_(std::move(options)),
      loss_(static_cast<size_t>(options_.exits), std::numeric_limits<double>::quiet_NaN()),
      gain_(static_cast<size_t>(options_.exits), std::numeric_limits<double>::infinity()) {}

int ExitSchedule::ExitAt(int64_t step) {
  const int64_t exits = options_.exits;
  switch (options_.order) {
    case ExitOrder::kSequential: {
      int exit = 0;
      while (exit + 1 < exits && step >= PhaseBegin(exit + 1)) ++exit;
      return exit;
    }
    case ExitOrder::kCyclic:
      return static_cast<int>(step % exits);
    case ExitOrder::kRandom: {
      Rng rng(options_.seed, RngStream::kExitSchedule, static_cast<uint64_t>(step));
      return static_cast<int>(rng.NextBelow(static_cast<uint64_t>(exits)));
    }
    case ExitOrder::kAdaptive: {
      const int64_t turn = step / options_.turn_steps;
      if (turn != turn_) {
        turn_ = turn;
        current_ = PickAdaptive();
      }
      return current_;
    }
  }
  return 0;
}

int64_t ExitSchedule::PhaseBegin(int exit) const {
  // Equal phases, whose remainder goes to the last exit (as released), or phases by share.
  if (options_.shares.empty()) {
    return exit * std::max<int64_t>(1, options_.total_steps / options_.exits);
  }
  double below = 0, all = 0;
  for (int e = 0; e < options_.exits; ++e) {
    (e < exit ? below : all) += options_.shares[static_cast<size_t>(e)];
  }
  return std::llround(below / (below + all) * static_cast<double>(options_.total_steps));
}

std::pair<int64_t, int64_t> ExitSchedule::Phase(int64_t step) const {
  if (options_.order != ExitOrder::kSequential) return {0, options_.total_steps};
  int exit = 0;
  while (exit + 1 < options_.exits && step >= PhaseBegin(exit + 1)) ++exit;
  const int64_t end = exit + 1 < options_.exits ? PhaseBegin(exit + 1) : options_.total_steps;
  return {PhaseBegin(exit), end};
}

bool ExitSchedule::WantsLoss(int64_t step) const {
  return options_.order == ExitOrder::kAdaptive && step % options_.turn_steps == 0;
}

void ExitSchedule::ReportLoss(int exit, int64_t step, double loss) {
  const auto e = static_cast<size_t>(exit);
  if (step > 0 && !std::isnan(loss_[e])) {
    const double seconds = options_.predicted_seconds.empty() ? 1.0 : options_.predicted_seconds[e];
    gain_[e] = (loss_[e] - loss) / (seconds * static_cast<double>(options_.turn_steps));
  }
  loss_[e] = loss;
}

int ExitSchedule::PickAdaptive() const {
  // Exits never tried come first (infinite gain), from the deepest: it is the one used alone.
  int best = options_.exits - 1;
  for (int e = options_.exits - 1; e >= 0; --e) {
    if (gain_[static_cast<size_t>(e)] > gain_[static_cast<size_t>(best)]) best = e;
  }
  return best;
}

std::vector<double> ExitSchedule::SaveState() const {
  std::vector<double> state = {static_cast<double>(current_), static_cast<double>(turn_)};
  state.insert(state.end(), loss_.begin(), loss_.end());
  state.insert(state.end(), gain_.begin(), gain_.end());
  return state;
}

Status ExitSchedule::RestoreState(const std::vector<double>& state) {
  if (state.size() != 2 + 2 * loss_.size()) {
    return BadInput(fmt::format("the saved exit schedule is for {} exits, the run has {}",
                                (state.size() - 2) / 2, loss_.size()));
  }
  current_ = static_cast<int>(state[0]);
  turn_ = static_cast<int64_t>(state[1]);
  const auto n = static_cast<int64_t>(loss_.size());
  std::copy_n(state.begin() + 2, n, loss_.begin());
  std::copy_n(state.begin() + 2 + n, n, gain_.begin());
  return Status::Ok();
}

}  // namespace edgewise::tune
