#include "bench/suite.h"

#include <time.h>

namespace edgewise::bench {
namespace {

constexpr double kStaleSeconds = 5;

}  // namespace

double Clock(const ExecContext& ctx) {
  timespec t;
  clock_gettime(ctx.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void PeakMeter::Refresh(Limit limit) {
  double& measured = measured_[static_cast<int>(limit)];
  const double now = Clock(ctx_);
  if (now - measured < kStaleSeconds) return;
  switch (limit) {
    case Limit::kFp32:
      peaks_.fp32_gflops = std::max(peaks_.fp32_gflops, kernels::MeasureFp32Peak(ctx_));
      break;
    case Limit::kInt8:
      peaks_.int8_gops = std::max(peaks_.int8_gops, kernels::MeasureInt8Peak(ctx_));
      break;
    case Limit::kRead:
      peaks_.read_gbps = std::max(peaks_.read_gbps, kernels::MeasureReadBandwidth(ctx_));
      break;
  }
  measured = Clock(ctx_);
}

double PeakMeter::Best(Limit limit) const {
  return 1e9 * (limit == Limit::kFp32   ? peaks_.fp32_gflops
                : limit == Limit::kInt8 ? peaks_.int8_gops
                                        : peaks_.read_gbps);
}

}  // namespace edgewise::bench
