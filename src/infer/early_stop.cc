#include "infer/early_stop.h"

#include <algorithm>
#include <utility>

#include "kernels/loss.h"

namespace edgewise::infer {

EarlyStopScores::EarlyStopScores(ExecContext& ctx, VotePolicy policy, int exits, int64_t vocab,
                                 std::vector<double> above)
    : ctx_(ctx), voter_(ctx, std::move(policy), exits, vocab), exits_(exits) {
  for (double bound : above) {
    sums_.push_back({bound, std::vector<int64_t>(static_cast<size_t>(exits)), 0, 0});
  }
}

void EarlyStopScores::Add(std::span<const float> logits, int32_t target) {
  const size_t vocab = logits.size() / static_cast<size_t>(exits_);
  std::vector<bool> open(sums_.size(), true);
  for (int k = 0; k < exits_; ++k) {
    const auto at = static_cast<size_t>(k);
    const double sure =
        k + 1 < exits_ ? voter_.Confidence(k, logits.subspan(at * vocab, vocab)) : 0;
    double logprob = 0;
    bool voted = false, correct = false;
    for (size_t s = 0; s < sums_.size(); ++s) {
      if (!open[s] || (k + 1 < exits_ && sure < sums_[s].above)) continue;
      open[s] = false;
      if (!std::exchange(voted, true)) {
        const std::span<const float> vote = voter_.Combine(logits.first((at + 1) * vocab));
        kernels::LogSoftmaxAt(ctx_, 1, static_cast<int64_t>(vocab), vote.data(), &target, &logprob);
        correct = std::max_element(vote.begin(), vote.end()) - vote.begin() == target;
      }
      ++sums_[s].decided[at];
      sums_[s].nll -= logprob;
      sums_[s].accuracy += correct ? 1 : 0;
    }
  }
  ++tokens_;
}

std::vector<EarlyStopScore> EarlyStopScores::Finish() const {
  std::vector<EarlyStopScore> means = sums_;
  const auto n = static_cast<double>(std::max<int64_t>(tokens_, 1));
  for (EarlyStopScore& s : means) s.nll /= n, s.accuracy /= n;
  return means;
}

}  // namespace edgewise::infer
