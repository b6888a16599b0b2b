// Fits the vote on held-out tokens: a temperature and a weight per exit. Streaming: no logits are
// kept, so any vocabulary and any number of tokens fit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace edgewise::vote {

// Temperature scaling (Guo et al., arXiv 1706.04599): the temperature with the least negative
// log-likelihood, from a logarithmic grid refined by a parabola through the best three points.
class TemperatureFit {
 public:
  explicit TemperatureFit(int exits);
  // One token of one exit. logits [vocab].
  void Add(int exit, std::span<const float> logits, int32_t target);
  std::vector<double> Best() const;

 private:
  std::vector<double> grid_;
  std::vector<double> nll_;  // [exits, grid]
};

// Mixture weights that maximise the likelihood of the targets under sum_e w_e p_e(target): convex,
// solved by expectation maximisation. target_prob [tokens, exits].
std::vector<double> FitWeights(std::span<const double> target_prob, int exits);

// Percentile bootstrap interval (95 %) of the mean of `differences`, for "is A better than B".
struct Interval {
  double mean = 0, low = 0, high = 0;
};
Interval BootstrapMean(std::span<const double> differences, uint64_t seed, int resamples = 1000);

}  // namespace edgewise::vote
