#include "eval/scorer.h"

#include <cmath>
#include <numeric>

namespace edgewise::eval {

Scorer::Scorer(ExecContext& ctx, const model::Model& model, const model::LoraAdapter* adapter,
               int64_t max_tokens)
    : adapter_(adapter), pass_(ctx, model, max_tokens) {}

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
  model::PassOptions options;
  options.lora = adapter_;
  options.token_loss = losses.data();
  EW_ASSIGN(const kernels::HeadLossResult sum, pass_.Run(batch_, options));
  if (!std::isfinite(sum.loss_sum)) {
    return BadInput("the model's loss is not a number: its weights may be damaged");
  }
  return Status::Ok();
}

Result<kernels::HeadLossResult> Scorer::BatchLoss(const TokenBatch& batch) {
  model::PassOptions options;
  options.lora = adapter_;
  return pass_.Run(batch, options);
}

}  // namespace edgewise::eval
