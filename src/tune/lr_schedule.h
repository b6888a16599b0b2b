// Learning rate by step.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace edgewise::tune {

enum class LrKind { kConstant, kLinear, kCosine };

std::string_view LrKindName(LrKind kind);  // "constant", "linear", "cosine"
Result<LrKind> ParseLrKind(std::string_view name);

struct LrOptions {
  LrKind kind = LrKind::kCosine;
  double lr = 2e-4;
  double min_lr = 0;  // where linear and cosine end
  // Steps of linear warm-up; negative: `warmup_ratio` of all steps, rounded up.
  int64_t warmup_steps = -1;
  double warmup_ratio = 0.03;
};

// With S steps of which W warm up, and s from 0:
//   s < W:    lr (s + 1) / W
//   constant: lr
//   linear:   min + (lr - min) (1 - (s - W) / (S - W))
//   cosine:   min + (lr - min) (1 + cos(pi (s - W) / (S - W))) / 2
class LrSchedule {
 public:
  // Error: a rate or ratio out of range, total_steps < 1.
  static Result<LrSchedule> Create(const LrOptions& options, int64_t total_steps);

  double At(int64_t step) const;
  int64_t warmup_steps() const { return warmup_; }

 private:
  LrOptions options_;
  int64_t total_ = 1, warmup_ = 0;
};

}  // namespace edgewise::tune
