// What every exit of a run says about the supervised tokens of a batch.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "model/exit_set.h"
#include "model/model.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"

namespace edgewise::infer {

class ExitScorer {
 public:
  // Batches of up to max_tokens tokens. Everything passed must outlive the scorer.
  ExitScorer(ExecContext& ctx, const model::Model& model, const model::ExitSet& exits,
             int64_t max_tokens);

  // What a scorer of batches of up to max_tokens tokens, and the vote on what it gives, hold beside
  // the pass.
  static int64_t BytesBeside(const model::ModelConfig& config, int exits, int64_t max_tokens);

  // Called with each supervised token's index in the batch and logits [exits, vocab].
  using TokenFn = std::function<void(int64_t token, std::span<const float> logits)>;
  Status Score(const TokenBatch& batch, const TokenFn& fn);

 private:
  Status States(const TokenBatch& batch);

  const model::Model& model_;
  const model::ExitSet& exits_;
  model::TrainingPass pass_;
  FloatBuffer trunk_, stream_;        // [max_tokens, hidden]
  std::vector<FloatBuffer> at_exit_;  // per exit, [supervised, hidden]
  std::vector<int64_t> supervised_;
  FloatBuffer logits_, row_;
};

}  // namespace edgewise::infer
