// How long the parts of a pass took, by the kind of work: to hold predictions against.
#pragma once

#include <array>
#include <chrono>

#include "plan/device.h"

namespace edgewise::model {

struct PartTimes {
  std::array<double, plan::kKernelKinds> seconds{};
  double& operator[](plan::KernelKind kind) { return seconds[static_cast<size_t>(kind)]; }
};

// Adds its lifetime to a part; does nothing when `times` is null.
class PartTimer {
 public:
  PartTimer(PartTimes* times, plan::KernelKind kind) : times_(times), kind_(kind) {
    if (times_ != nullptr) start_ = Clock::now();
  }
  ~PartTimer() {
    if (times_ == nullptr) return;
    (*times_)[kind_] += std::chrono::duration<double>(Clock::now() - start_).count();
  }
  PartTimer(const PartTimer&) = delete;
  PartTimer& operator=(const PartTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  PartTimes* times_;
  plan::KernelKind kind_;
  Clock::time_point start_;
};

}  // namespace edgewise::model
