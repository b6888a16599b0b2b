#include "report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace edgewise::report {
namespace {

double NiceStep(double range, int max_ticks) {
  const double raw = range / std::max(1, max_ticks - 1);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

void Repair(double& lo, double& hi) {
  if (!std::isfinite(lo) || !std::isfinite(hi) || hi < lo) {
    lo = 0;
    hi = 1;
  } else if (hi - lo <= 1e-12 * std::max(std::fabs(lo), std::fabs(hi)) || hi == lo) {
    const double pad = hi == 0 ? 1 : 0.1 * std::fabs(hi);
    lo -= lo == 0 ? 0 : pad;
    hi += pad;
  }
}

void AddTicks(Axis& axis, double step) {
  // Counted in whole steps, so that no rounding error piles up.
  const double first = std::ceil(axis.lo / step - 1e-6), last = std::floor(axis.hi / step + 1e-6);
  for (double i = first; i <= last && axis.ticks.size() < 50; ++i) {
    axis.ticks.push_back(i == 0 ? 0.0 : i * step);
  }
}

}  // namespace

Axis MakeAxis(double lo, double hi, int max_ticks) {
  Repair(lo, hi);
  const double step = NiceStep(hi - lo, max_ticks);
  Axis axis;
  axis.lo = std::floor(lo / step + 1e-6) * step;
  axis.hi = std::ceil(hi / step - 1e-6) * step;
  AddTicks(axis, step);
  return axis;
}

Axis MakeExactAxis(double lo, double hi, int max_ticks) {
  Repair(lo, hi);
  Axis axis;
  axis.lo = lo;
  axis.hi = hi;
  AddTicks(axis, NiceStep(hi - lo, max_ticks));
  return axis;
}

Axis MakeLogAxis(double lo, double hi) {
  Axis axis;
  axis.log = true;
  const double first = std::floor(std::log10(lo) + 1e-9);
  const double last = std::max(first + 1, std::ceil(std::log10(hi) - 1e-9));
  axis.lo = std::pow(10.0, first);
  axis.hi = std::pow(10.0, last);
  for (double power = first; power <= last; ++power) axis.ticks.push_back(std::pow(10.0, power));
  return axis;
}

std::string TickText(double value, const Axis& axis) {
  if (axis.log) return fmt::format("{:.3g}", value);
  const double step = axis.ticks.size() > 1 ? axis.ticks[1] - axis.ticks[0] : std::fabs(value);
  if (value != 0 && step >= 1e6 * (1 - 1e-9)) return fmt::format("{:.6g}M", value / 1e6);
  if (value != 0 && std::fabs(value) >= 1e4 && step >= 1e2) {
    return fmt::format("{:.6g}k", value / 1e3);
  }
  if (step > 0 && (step < 1e-4 || std::fabs(value) >= 1e9)) return fmt::format("{:.3g}", value);
  const int digits =
      step > 0 ? std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-6)), 0, 6) : 2;
  return fmt::format("{:.{}f}", value, digits);
}

}  // namespace edgewise::report
