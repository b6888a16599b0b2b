// KL divergence of the final logits when the states of a model are disturbed on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "model/model.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"

namespace edgewise::compress {

class LogitDivergence {
 public:
  // Runs the original model on the first `count` windows and keeps what it ends in; nothing for 0.
  static Result<std::unique_ptr<LogitDivergence>> Create(model::TrainingPass& pass,
                                                         const model::Model& model,
                                                         const std::vector<TokenBatch>& windows,
                                                         int64_t count);

  bool Measures(size_t window) const { return window < final_.size(); }
  int64_t tokens() const { return tokens_; }  // of all windows that are measured

  // Sum over the window's tokens of KL(original || disturbed), nats, when the state entering layer
  // `layer` is `hidden` [tokens, hidden] (overwritten).
  Result<double> Measure(size_t window, int64_t layer, float* hidden);

 private:
  LogitDivergence(model::TrainingPass& pass, const model::Model& model,
                  const std::vector<TokenBatch>& windows)
      : pass_(pass), model_(model), windows_(windows) {}

  model::TrainingPass& pass_;
  const model::Model& model_;
  const std::vector<TokenBatch>& windows_;
  std::vector<FloatBuffer> final_;  // [tokens, hidden] leaving the last layer of the original
  FloatBuffer p_, q_;               // logits of some rows
  int64_t tokens_ = 0;
};

}  // namespace edgewise::compress
