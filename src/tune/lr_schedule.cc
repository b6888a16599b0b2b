#include "tune/lr_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace edgewise::tune {

std::string_view LrKindName(LrKind kind) {
  switch (kind) {
    case LrKind::kConstant:
      return "constant";
    case LrKind::kLinear:
      return "linear";
    case LrKind::kCosine:
      return "cosine";
  }
  return "?";
}

Result<LrKind> ParseLrKind(std::string_view name) {
  for (LrKind kind : {LrKind::kConstant, LrKind::kLinear, LrKind::kCosine}) {
    if (name == LrKindName(kind)) return kind;
  }
  return InvalidArgument(
      fmt::format("unknown learning rate schedule \"{}\": use constant, linear or cosine", name));
}

Result<LrSchedule> LrSchedule::Create(const LrOptions& o, int64_t total_steps) {
  if (total_steps < 1) return InvalidArgument("a learning rate schedule needs at least one step");
  if (!(o.lr >= 0) || !std::isfinite(o.lr)) {
    return InvalidArgument(fmt::format("learning rate {} is not a finite number >= 0", o.lr));
  }
  if (!(o.min_lr >= 0) || o.min_lr > o.lr) {
    return InvalidArgument(
        fmt::format("minimum learning rate {} is not between 0 and {}", o.min_lr, o.lr));
  }
  if (o.warmup_steps < 0 && !(o.warmup_ratio >= 0 && o.warmup_ratio <= 1)) {
    return InvalidArgument(fmt::format("warm-up ratio {} is not between 0 and 1", o.warmup_ratio));
  }
  LrSchedule s;
  s.options_ = o;
  s.total_ = total_steps;
  s.warmup_ =
      o.warmup_steps >= 0
          ? o.warmup_steps
          : static_cast<int64_t>(std::ceil(o.warmup_ratio * static_cast<double>(total_steps)));
  return s;
}

double LrSchedule::At(int64_t step) const {
  const double lr = options_.lr;
  if (step < warmup_) return lr * static_cast<double>(step + 1) / static_cast<double>(warmup_);
  if (options_.kind == LrKind::kConstant) return lr;
  const double span = static_cast<double>(std::max<int64_t>(total_ - warmup_, 1));
  const double done = std::min(1.0, static_cast<double>(step - warmup_) / span);
  const double range = lr - options_.min_lr;
  if (options_.kind == LrKind::kLinear) return options_.min_lr + range * (1 - done);
  return options_.min_lr + range * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

}  // namespace edgewise::tune
