// How much the loss minds an error at the output of each linear: gradients on a few windows.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "io/random_file.h"
#include "model/model.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"

namespace edgewise::compress {

// Gradients dL/dy [tokens, out] of the summed loss with respect to the output y of every linear,
// tokens of all windows in one stream. Kept as bf16, in memory or in a file.
class GradientSample {
 public:
  // One forward and backward pass per window; weights that are mapped are let go of layer by layer.
  // In memory when all of it takes at most `memory_bytes`, else in the file `path`, which is
  // removed in the end. Error: a loss that is not finite; kInterrupted.
  static Result<std::unique_ptr<GradientSample>> Collect(
      model::TrainingPass& pass, const model::Model& model,
      const std::vector<const TokenBatch*>& windows, int64_t memory_bytes, const std::string& path,
      const std::atomic<bool>* stop);
  ~GradientSample();
  GradientSample(const GradientSample&) = delete;
  GradientSample& operator=(const GradientSample&) = delete;

  int64_t tokens() const { return tokens_; }
  int64_t labelled() const { return labelled_; }  // tokens that a loss belongs to
  // out [tokens, out of the linear]
  Status Read(int64_t layer, model::LinearKind kind, float* out) const;

  // Bytes of all gradients of `tokens` tokens.
  static int64_t Bytes(const model::ModelConfig& config, int64_t tokens);
  // Memory of the passes on one window.
  static int64_t PassBytes(const model::TrainingPass& pass, const model::ModelConfig& config);

 private:
  class Recorder;
  explicit GradientSample(const model::ModelConfig& config) : config_(config) {}
  int64_t Offset(int64_t layer, model::LinearKind kind, int64_t token) const;  // bytes
  Status Write(int64_t layer, model::LinearKind kind, int64_t token, int64_t rows, const float* dy);

  const model::ModelConfig& config_;
  int64_t tokens_ = 0, labelled_ = 0;
  AlignedBuffer memory_;
  std::unique_ptr<RandomFile> file_;
};

}  // namespace edgewise::compress
