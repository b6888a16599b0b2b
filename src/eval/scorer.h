// Log-likelihood of given tokens under a model, in one pass, without ever holding a [tokens, vocab]
// matrix.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "infer/exit_scorer.h"
#include "infer/session.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"

namespace edgewise::eval {

class Scorer {
 public:
  // Inputs of up to max_tokens tokens. The session must outlive the scorer. Exits score as they
  // vote.
  Scorer(infer::Session& session, int64_t max_tokens);

  // losses [ids.size()]: -log p(next[t] | ids[0..t]) in nats for t >= first, 0 before. `next` has
  // as many entries as `ids`. Error: too many tokens, ids out of the vocabulary, a loss that is not
  // a number.
  Status TokenLosses(std::span<const int32_t> ids, std::span<const int32_t> next, int64_t first,
                     std::span<float> losses);

  // Sum over the supervised tokens of a batch.
  Result<kernels::HeadLossResult> BatchLoss(const TokenBatch& batch);

 private:
  // Loss of each supervised token of the batch; with exits, of their vote.
  Result<kernels::HeadLossResult> Run(const TokenBatch& batch, float* token_loss);

  infer::Session& session_;
  std::optional<model::TrainingPass> pass_;
  std::optional<infer::ExitScorer> exits_;
  TokenBatch batch_;
};

}  // namespace edgewise::eval
