#include "eval/scorer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/loss.h"

namespace edgewise::eval {

Scorer::Scorer(infer::Session& session, int64_t max_tokens) : session_(session) {
  if (session.exits() != nullptr) {
    exits_.emplace(session.exec(), session.model(), *session.exits(), max_tokens);
  } else {
    pass_.emplace(session.exec(), session.model(), max_tokens);
  }
}

Result<kernels::HeadLossResult> Scorer::Run(const TokenBatch& batch, float* token_loss) {
  if (pass_) {
    model::PassOptions options;
    options.lora = session_.adapter();
    options.activation_bits = session_.activation_bits();
    options.token_loss = token_loss;
    return pass_->Run(batch, options);
  }
  kernels::HeadLossResult sum;
  if (token_loss != nullptr) std::fill_n(token_loss, batch.size(), 0.0f);
  EW_RETURN_IF_ERROR(exits_->Score(batch, [&](int64_t t, std::span<const float> logits) {
    const std::span<const float> vote = session_.voter()->Combine(logits);
    const int32_t target = batch.targets[static_cast<size_t>(t)];
    double log_probability = 0;
    kernels::LogSoftmaxAt(session_.exec(), 1, static_cast<int64_t>(vote.size()), vote.data(),
                          &target, &log_probability);
    if (token_loss != nullptr) token_loss[t] = static_cast<float>(-log_probability);
    sum.loss_sum -= log_probability;
    sum.weight_sum += 1;
    ++sum.labelled;
    sum.correct += std::max_element(vote.begin(), vote.end()) - vote.begin() == target;
  }));
  return sum;
}

Status Scorer::TokenLosses(std::span<const int32_t> ids, std::span<const int32_t> next,
                           int64_t first, std::span<float> losses) {
  batch_.ids.assign(ids.begin(), ids.end());
  batch_.positions.resize(ids.size());
  std::iota(batch_.positions.begin(), batch_.positions.end(), 0);
  batch_.first_key.assign(ids.size(), 0);
  batch_.targets.assign(next.begin(), next.end());
  for (int64_t t = 0; t < first; ++t) {
    batch_.targets[static_cast<size_t>(t)] = TokenBatch::kNoTarget;
  }
  EW_ASSIGN(const kernels::HeadLossResult sum, Run(batch_, losses.data()));
  if (!std::isfinite(sum.loss_sum)) {
    return BadInput("the model's loss is not a number: its weights may be damaged");
  }
  return Status::Ok();
}

Result<kernels::HeadLossResult> Scorer::BatchLoss(const TokenBatch& batch) {
  return Run(batch, nullptr);
}

}  // namespace edgewise::eval
