#include "report/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/units.h"

namespace edgewise::report {
namespace {

constexpr double kEmaDecay = 0.95;
constexpr const char* kYellow = "\033[33m";
constexpr const char* kGreen = "\033[32m";
constexpr const char* kReset = "\033[0m";
constexpr double kGiB = 1024.0 * 1024 * 1024;

std::string FormatLoss(double loss) {
  if (!std::isfinite(loss)) return "nan";
  return loss < 0.1 ? fmt::format("{:.4f}", loss) : fmt::format("{:.3f}", loss);
}

// "1.62/2.00 GiB", "183/512 MiB": both in the unit of the limit, or of what is used without one.
std::string MemoryText(int64_t used, int64_t limit) {
  const auto whole = static_cast<double>(limit > 0 ? limit : used);
  const bool large = whole >= kGiB;
  const double unit = large ? kGiB : kGiB / 1024;
  const int digits = large ? 2 : 0;
  const double rss = static_cast<double>(used) / unit;
  const char* name = large ? "GiB" : "MiB";
  return limit > 0 ? fmt::format("{:.{}f}/{:.{}f} {}", rss, digits, whole / unit, digits, name)
                   : fmt::format("{:.{}f} {}", rss, digits, name);
}

}  // namespace

std::string FormatRate(double value) {
  if (value == 0 || !std::isfinite(value)) return fmt::format("{}", value);
  std::string text = fmt::format("{:.1e}", value);  // 1.9e-04
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  return fmt::format("{}e{}", text.substr(0, e), exponent);
}

ProgressOptions ChooseProgress(const ProgressEnvironment& env) {
  ProgressOptions out;
  if (env.quiet) {
    out.style = ProgressStyle::kQuiet;
  } else if (env.is_terminal && !env.dumb && !env.ci && !env.no_progress) {
    out.style = ProgressStyle::kLive;
  }
  out.color = env.is_terminal && !env.dumb && !env.no_color;
  out.columns = env.columns > 20 ? env.columns : 80;
  return out;
}

std::string Progress::StepLine(const StepEvent& e, double ema, double eta_s, int64_t memory_limit,
                               int columns) {
  std::string head = fmt::format("step {}/{}", e.step, e.total_steps);
  if (e.total_steps > 0) head += fmt::format("  {}%", 100 * e.step / e.total_steps);
  head += "  loss " + FormatLoss(e.loss);
  const std::string mean = fmt::format(" (ema {})", FormatLoss(ema));
  const std::string rate = "  lr " + FormatRate(e.lr);
  std::string tail = fmt::format("  {:.0f} tok/s", e.tokens_per_s);
  if (e.rss_bytes > 0) tail += "  mem " + MemoryText(e.rss_bytes, memory_limit);
  if (eta_s >= 0) tail += "  eta " + FormatSeconds(eta_s);
  if (e.skipped_total > 0) tail += fmt::format("  skipped {}", e.skipped_total);
  const auto room = static_cast<size_t>(std::max(columns, 0));
  if (head.size() + mean.size() + rate.size() + tail.size() <= room) {
    return head + mean + rate + tail;
  }
  return head.size() + mean.size() + tail.size() <= room ? head + mean + tail : head + tail;
}

void Progress::Line(std::string_view text, const char* color) {
  const bool paint = options_.color && color != nullptr;
  if (open_line_) write_("\r\033[K");
  open_line_ = false;
  write_(fmt::format("{}{}{}\n", paint ? color : "", text, paint ? kReset : ""));
}

void Progress::OnStep(const StepEvent& e) {
  // The first step waits for data, cached states and memory that is touched for the first time: it
  // says nothing about those that follow.
  if (first_step_ < 0) {
    first_step_ = e.step;
    first_elapsed_s_ = e.elapsed_s;
  }
  if (std::isfinite(e.loss)) {
    ema_ = kEmaDecay * ema_ + (1 - kEmaDecay) * e.loss;
    ema_weight_ = kEmaDecay * ema_weight_ + (1 - kEmaDecay);
  }
  if (options_.style == ProgressStyle::kQuiet) return;
  const double interval =
      options_.style == ProgressStyle::kLive ? options_.live_interval_s : options_.plain_interval_s;
  const bool last = e.step >= e.total_steps;
  if (!last && e.elapsed_s - last_print_s_ < interval) return;
  last_print_s_ = e.elapsed_s;
  const int64_t done = e.step - first_step_;
  const double eta = done > 0 ? (e.elapsed_s - first_elapsed_s_) / static_cast<double>(done) *
                                    static_cast<double>(e.total_steps - e.step)
                              : -1;
  const double ema = ema_weight_ > 0 ? ema_ / ema_weight_ : e.loss;
  const bool live = options_.style == ProgressStyle::kLive;
  std::string line = live ? StepLine(e, ema, eta, options_.memory_limit_bytes, options_.columns - 1)
                          : StepLine(e, ema, eta, options_.memory_limit_bytes);
  if (options_.style == ProgressStyle::kPlain) {
    write_(line + "\n");
    return;
  }
  if (line.size() >= static_cast<size_t>(options_.columns)) {
    line.resize(static_cast<size_t>(options_.columns) - 1);
  }
  write_("\r\033[K" + line);
  open_line_ = true;
}

void Progress::On(const Event& event) {
  if (const auto* step = std::get_if<StepEvent>(&event)) return OnStep(*step);
  if (const auto* warning = std::get_if<WarningEvent>(&event)) {
    return Line(fmt::format("warning: {}", warning->message), kYellow);
  }
  if (options_.style == ProgressStyle::kQuiet) return;
  if (const auto* valid = std::get_if<ValidEvent>(&event)) {
    std::string text = fmt::format("step {}  valid loss {}{}", valid->step, FormatLoss(valid->loss),
                                   valid->best ? " (best)" : "");
    if (valid->score) text += fmt::format("  {} {:.4f}", valid->score_name, *valid->score);
    Line(text + "  " + FormatSeconds(valid->seconds), valid->best ? kGreen : nullptr);
  } else if (const auto* save = std::get_if<SaveEvent>(&event)) {
    if (save->error.empty()) Line(fmt::format("saved {}", save->path), nullptr);
  } else if (const auto* run = std::get_if<RunEvent>(&event)) {
    if (!run->note.empty()) Line(run->note, nullptr);
  }
}

void Progress::Finish() {
  if (open_line_) write_("\n");
  open_line_ = false;
}

}  // namespace edgewise::report
