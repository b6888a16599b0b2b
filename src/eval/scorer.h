// Log-likelihood of given tokens under a model, in one pass, without ever holding a [tokens, vocab]
// matrix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "model/lora.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"

namespace edgewise::eval {

class Scorer {
 public:
  // Inputs of up to max_tokens tokens. Everything passed must outlive the scorer; `adapter` may be
  // null.
  Scorer(ExecContext& ctx, const model::Model& model, const model::LoraAdapter* adapter,
         int64_t max_tokens);

  // losses [ids.size()]: -log p(next[t] | ids[0..t]) in nats for t >= first, 0 before. `next` has
  // as many entries as `ids`. Error: too many tokens, ids out of the vocabulary, a loss that is not
  // a number.
  Status TokenLosses(std::span<const int32_t> ids, std::span<const int32_t> next, int64_t first,
                     std::span<float> losses);

  // Sum over the supervised tokens of a batch.
  Result<kernels::HeadLossResult> BatchLoss(const TokenBatch& batch);

 private:
  const model::LoraAdapter* adapter_;
  model::TrainingPass pass_;
  TokenBatch batch_;
};

}  // namespace edgewise::eval
