// Losses of exits without gradients.
#include <algorithm>
#include <cmath>

#include "tune/edge_method.h"

namespace edgewise::tune {

Result<LossSum> EdgeMethod::EvaluateExit(const TokenBatch& batch, int exit, float* token_loss) {
  model::PassOptions o = WindowPass(exit, /*train=*/false);
  if (cumulative()) {
    // From the deepest start that the phase under way has made, through everything above it.
    const int from = std::min(current_, exit);
    o.begin = exits_[static_cast<size_t>(from)].begin;
    o.lora_begin = o.begin;
    EW_ASSIGN(o.start_hidden, Start(batch, from));
  } else {
    EW_ASSIGN(o.start_hidden, Start(batch, exit));
  }
  o.token_loss = token_loss;
  EW_ASSIGN(const kernels::HeadLossResult r, pass_.Run(batch, o));
  return LossSum{r.loss_sum, r.labelled, r.correct};
}

Result<LossSum> EdgeMethod::Evaluate(const TokenBatch& batch) {
  const int exits = static_cast<int>(exits_.size());
  if (cumulative()) return EvaluateExit(batch, exits - 1);
  std::vector<double> probability(static_cast<size_t>(batch.size()), 0.0);
  std::vector<float> loss(static_cast<size_t>(batch.size()));
  LossSum sum;
  for (int e = 0; e < exits; ++e) {
    EW_ASSIGN(const LossSum one, EvaluateExit(batch, e, loss.data()));
    sum.tokens = one.tokens;
    sum.correct = one.correct;  // of the last exit
    for (size_t t = 0; t < loss.size(); ++t) {
      if (batch.targets[t] >= 0) probability[t] += std::exp(-static_cast<double>(loss[t])) / exits;
    }
  }
  for (size_t t = 0; t < loss.size(); ++t) {
    if (batch.targets[t] >= 0) sum.loss_sum -= std::log(std::max(probability[t], 1e-300));
  }
  return sum;
}

Result<std::vector<LossSum>> EdgeMethod::EvaluateExits(const TokenBatch& batch) {
  std::vector<LossSum> out;
  // Windows that all end at the top of one model have one output.
  if (exits_.size() < 2 || (cumulative() && exits_.front().end == exits_.back().end)) return out;
  for (int e = 0; e < static_cast<int>(exits_.size()); ++e) {
    EW_ASSIGN(out.emplace_back(), EvaluateExit(batch, e));
  }
  return out;
}

}  // namespace edgewise::tune
