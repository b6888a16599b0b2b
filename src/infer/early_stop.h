// What stopping early costs: the vote of the exits that a token has reached when one of them is
// sure enough, for several bounds at once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exec/context.h"
#include "infer/vote_policy.h"

namespace edgewise::infer {

struct EarlyStopScore {
  double above = 0;              // probability that ends a token
  std::vector<int64_t> decided;  // tokens that ended at each exit
  double nll = 0;                // mean, nats
  double accuracy = 0;
};

class EarlyStopScores {
 public:
  // `policy`: its rule and temperatures. `above`: the bounds.
  EarlyStopScores(ExecContext& ctx, VotePolicy policy, int exits, int64_t vocab,
                  std::vector<double> above);
  // One token. logits [exits, vocab].
  void Add(std::span<const float> logits, int32_t target);
  // Means over the tokens added.
  std::vector<EarlyStopScore> Finish() const;

 private:
  ExecContext& ctx_;
  Voter voter_;
  int exits_;
  int64_t tokens_ = 0;
  std::vector<EarlyStopScore> sums_;
};

}  // namespace edgewise::infer
