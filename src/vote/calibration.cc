#include "vote/calibration.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace edgewise::vote {
namespace {
// 0.25 .. 4 in steps of 2^(1/4).
constexpr int kGrid = 17;
constexpr int kMaxEmSteps = 1000;
}  // namespace

TemperatureFit::TemperatureFit(int exits) : nll_(static_cast<size_t>(exits * kGrid), 0.0) {
  for (int i = 0; i < kGrid; ++i) grid_.push_back(std::exp2((i - kGrid / 2) / 4.0));
}

void TemperatureFit::Add(int exit, std::span<const float> logits, int32_t target) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double* nll = nll_.data() + static_cast<size_t>(exit) * kGrid;
  const double at = static_cast<double>(logits[static_cast<size_t>(target)]) - top;
  for (int g = 0; g < kGrid; ++g) {
    double sum = 0;
    for (float x : logits)
      sum += std::exp((static_cast<double>(x) - top) / grid_[static_cast<size_t>(g)]);
    nll[g] += std::log(sum) - at / grid_[static_cast<size_t>(g)];
  }
}

std::vector<double> TemperatureFit::Best() const {
  std::vector<double> best;
  for (size_t e = 0; e * kGrid < nll_.size(); ++e) {
    const double* nll = nll_.data() + e * kGrid;
    const auto k = std::min_element(nll, nll + kGrid) - nll;
    double shift = 0;
    if (k > 0 && k + 1 < kGrid) {
      const double left = nll[k - 1], mid = nll[k], right = nll[k + 1];
      const double curvature = left - 2 * mid + right;
      if (curvature > 0) shift = 0.5 * (left - right) / curvature;
    }
    best.push_back(grid_[static_cast<size_t>(k)] * std::exp2(shift / 4.0));
  }
  return best;
}

std::vector<double> FitWeights(std::span<const double> p, int exits) {
  const size_t n = p.size() / static_cast<size_t>(exits);
  const auto count = static_cast<size_t>(exits);
  std::vector<double> w(count, 1.0 / exits), next(count);
  if (n == 0) return w;
  for (int step = 0; step < kMaxEmSteps; ++step) {
    std::fill(next.begin(), next.end(), 0.0);
    for (size_t t = 0; t < n; ++t) {
      double sum = 0;
      for (size_t e = 0; e < count; ++e) sum += w[e] * p[t * count + e];
      if (!(sum > 0)) continue;
      for (size_t e = 0; e < count; ++e) next[e] += w[e] * p[t * count + e] / sum;
    }
    double total = 0, change = 0;
    for (double x : next) total += x;
    if (!(total > 0)) return w;
    for (size_t e = 0; e < count; ++e) {
      next[e] /= total;
      change = std::max(change, std::abs(next[e] - w[e]));
    }
    w.swap(next);
    if (change < 1e-9) break;
  }
  return w;
}

Interval BootstrapMean(std::span<const double> d, uint64_t seed, int resamples) {
  Interval out;
  if (d.empty()) return out;
  for (double x : d) out.mean += x;
  out.mean /= static_cast<double>(d.size());
  std::vector<double> means;
  means.reserve(static_cast<size_t>(resamples));
  for (int r = 0; r < resamples; ++r) {
    Rng rng(seed, RngStream::kCalibration, static_cast<uint64_t>(r));
    double sum = 0;
    for (size_t i = 0; i < d.size(); ++i) sum += d[rng.NextBelow(d.size())];
    means.push_back(sum / static_cast<double>(d.size()));
  }
  std::sort(means.begin(), means.end());
  const auto at = [&](double q) {
    return means[static_cast<size_t>(q * static_cast<double>(means.size() - 1))];
  };
  out.low = at(0.025);
  out.high = at(0.975);
  return out;
}

}  // namespace edgewise::vote
