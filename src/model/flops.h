// Work and traffic of a model's operations, for reports and planners. A multiply-add is 2 FLOPs.
#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/lora.h"

namespace edgewise::model {

struct StepWork {
  double forward = 0;       // FLOPs
  double backward = 0;      // input gradients, adapter or weight gradients, attention
  double recompute = 0;     // forward work done again
  double head = 0;          // LM head and loss, forward and backward
  double weight_bytes = 0;  // bytes of weights read, each once per direction
  double total() const { return forward + backward + recompute + head; }
};

struct StepWorkOptions {
  int64_t tokens = 0;
  int64_t sequence = 0;    // length of a document; 0: tokens (attention work depends on it)
  int64_t supervised = 0;  // rows that the head computes
  LayerRange run{0, -1};   // layers run forward; end = -1: all
  int64_t train_from = 0;  // gradients go down to this layer; == run.end: forward only
  bool full = false;       // gradients of the base weights too
  int64_t lora_rank = 0;   // on all linears; 0: none
  bool recompute = false;
  double bytes_per_weight = 4;
};

StepWork CountStep(const ModelConfig& config, const StepWorkOptions& options);
// FLOPs of one decoded token with `context` keys.
double DecodeFlops(const ModelConfig& config, int64_t context);

}  // namespace edgewise::model
