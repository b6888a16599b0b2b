// What a run will take, before it takes it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "model/model.h"
#include "tune/model_method.h"

namespace edgewise::tune {

// Bytes, all resident at the peak.
struct MemoryEstimate {
  int64_t weights = 0;    // base, as held; fp32 masters for full fine-tuning
  int64_t trainable = 0;  // values that are not part of the base (LoRA factors)
  int64_t gradients = 0;
  int64_t optimizer = 0;    // moments
  int64_t activations = 0;  // kept from forward to backward
  int64_t scratch = 0;      // working buffers, packed panels of the kernels
  int64_t runtime = 0;      // program, tokenizer, data
  int64_t total() const {
    return weights + trainable + gradients + optimizer + activations + scratch + runtime;
  }
  std::string ToString() const;  // "1.20 GiB: weights 0.51 GiB, ..."
};

struct MemoryRequest {
  ModelMethodOptions method;
  int64_t max_tokens = 0;       // of one micro-batch
  double bytes_per_weight = 0;  // of the base's matrices; 0: as the model holds them
  int64_t runtime_bytes = 0;    // resident without the model's weights
  // Method edge: what its largest window takes (EdgeMethod::MemoryNeeded) with `method`'s
  // recompute, mlp_rows and layers_in_memory and micro-batches of `max_tokens`, in place of what
  // the method would take over the whole depth.
  std::function<model::PassMemory(const ModelMethodOptions& method, int64_t max_tokens)> pass = {};
  int64_t group = 1;           // micro-batches that go through each layer together
  int64_t kernel_scratch = 0;  // what kernels keep for themselves, measured; 0: the most they do
  // Streamed: bytes of the units that the run uses at all; 0: of every one.
  int64_t used_weights = 0;
  bool may_spill = false;   // what layers keep may go to the disk where nothing else fits
  bool whole_head = false;  // streamed: the head is wanted at once, not in blocks
  int64_t trained = 0;  // numbers that are tuned, heads of exits included; 0: as the method says
};

// How a run fits its limit: what the executor obeys.
struct MemoryFit {
  MemoryEstimate estimate;  // with the weights that are in memory at a time
  // Of the request, or needed.
  plan::Recompute recompute = plan::Recompute::kNone;
  int64_t mlp_rows = model::kMlpRows;
  int64_t layers_in_memory = -1;
  int64_t weight_budget = 0;  // of a streamed model: bytes of weights in memory at a time
  bool offloaded = false;     // less than all of them
};

// The request's own form of recomputation, then ever smaller ones (same bits).
struct RecomputeForm {
  plan::Recompute recompute = plan::Recompute::kNone;
  int64_t mlp_rows = model::kMlpRows;
};
std::vector<RecomputeForm> FormsToTry(const MemoryRequest& request);

// Fits a streamed model (Model::stream) into `limit_bytes`: all weights in memory where they fit,
// else as many as the rest leaves, else activations recomputed as well (of the MLPs, of all), the
// MLPs in smaller pieces, else as few of them as needed on disk, if they may. Error: kOutOfMemory,
// with the smallest limit that works (stored in `smallest`, in bytes, unless null) and what else
// would make the run smaller.
Result<MemoryFit> FitStreamed(ExecContext& ctx, const model::Model& model,
                              const MemoryRequest& request, int64_t limit_bytes,
                              int64_t* smallest = nullptr);

// Fits a model whose weights lie in memory as a whole: as it is, else with activations recomputed.
// limit_bytes <= 0: none. Error: as FitStreamed's.
Result<MemoryFit> FitMapped(ExecContext& ctx, const model::Model& model,
                            const MemoryRequest& request, int64_t limit_bytes,
                            int64_t* smallest = nullptr);

// Of a model's weights: bytes mapped, or in memory at the moment when they are streamed.
int64_t HeldWeightBytes(const model::Model& model);
// Of the values of `params`.
int64_t ParameterBytes(const std::vector<model::Parameter>& params);

// Allocates nothing of what it counts (but the LoRA factors, for a moment). Error: options that do
// not fit the model.
Result<MemoryEstimate> EstimateMemory(ExecContext& ctx, const model::Model& model,
                                      const MemoryRequest& request);

// Ok when the request fits into `limit_bytes`. Else kOutOfMemory, with what it takes and which
// changes (recomputation, a base in 16 bits, shorter batches, fewer layers) would make it fit.
Status CheckMemory(ExecContext& ctx, const model::Model& model, const MemoryRequest& request,
                   int64_t limit_bytes);

}  // namespace edgewise::tune
