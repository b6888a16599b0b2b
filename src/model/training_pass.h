// Forward and backward of a whole model (or of a window of its layers) on one packed stream of
// documents: loss, gradients, hidden states. Buffers are planned once and reused from step to step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "kernels/linear.h"
#include "kernels/loss.h"
#include "model/activation_spill.h"
#include "model/linear_observer.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/parameters.h"
#include "model/part_times.h"
#include "model/whole_head.h"
#include "plan/workload.h"

namespace edgewise {
struct TokenBatch;  // tensor/token_batch.h
}  // namespace edgewise

namespace edgewise::model {

// What stands above the last layer that is run. Null members: the model's own norm and head.
struct ExitHead {
  const float* norm = nullptr;  // [hidden] gain instead of the model's final norm
  float* dnorm = nullptr;       // its gradient, added to, or null
  // Low-rank adapter on the head, and its gradients (added to, or null).
  int64_t lora_r = 0;
  float lora_scale = 0;
  const float* lora_a = nullptr;  // [r, hidden]
  const float* lora_b = nullptr;  // [vocab, r]
  float* dlora_a = nullptr;
  float* dlora_b = nullptr;
  // A full head of this exit's own instead of the model's, and its gradient (added to, or null).
  const kernels::WeightRef* head = nullptr;
  float* dhead = nullptr;
};

// Seconds of the parts of TrainingPass::Run, added up over its runs.
struct PassPhases {
  double forward = 0;   // layers
  double head = 0;      // final norm, head, loss and their gradients
  double backward = 0;  // layers
  double waited = 0;    // for streamed weights, in all of these
};

inline constexpr int64_t kMlpRows = plan::kMlpTokens, kLeastMlpRows = plan::kLeastMlpTokens;

struct PassOptions {
  // Layers [begin, end) are run; end = -1: all. begin > 0 needs start_hidden.
  int64_t begin = 0;
  int64_t end = -1;
  const float* start_hidden = nullptr;  // [tokens, hidden] entering layer `begin`

  // Adapter applied in layers >= lora_begin (an exit's window, say; 0: everywhere). Null: none.
  const LoraAdapter* lora = nullptr;
  int64_t lora_begin = 0;

  // Where gradients are added; null: loss only (nothing is saved). Back-propagation goes down to
  // the lowest layer that has one.
  const GradientMap* gradients = nullptr;
  // The gradient is that of grad_scale * (sum of the losses of the supervised tokens): pass
  // 1 / (supervised tokens of the whole accumulation window).
  double grad_scale = 0;
  ExitHead head;

  // What of each layer is computed again in the backward pass instead of kept (same bits). Empty:
  // nothing.
  std::span<const plan::Recompute> recompute;
  // Tokens that go at a time through the MLP of layers that do not keep it: of those that say so
  // here, and of those that have no gradient. 0: all of them. A multiple of kernels::kTokenBlock
  // (same bits).
  int64_t mlp_rows = kMlpRows;

  // Only this many of the topmost layers that back-propagation reaches keep what they keep in
  // memory; what the ones below keep, which is used last, passes through `spill` to the disk (same
  // bits). -1: all of them.
  int64_t layers_in_memory = -1;
  ActivationSpill* spill = nullptr;  // one pass at a time

  // LoRA dropout, a pure function of (seed, key, layer, linear, element): give every micro-batch a
  // key of its own. 0: off.
  float dropout = 0;
  uint64_t dropout_seed = 0;
  uint64_t dropout_key = 0;

  // How gradients pass through packed weights. Stochastic rounding draws from (seed, substream,
  // layer, linear): give every micro-batch a substream of its own.
  kernels::LinearBackwardOptions backward;

  // Inputs of the linears, keys and values are rounded to this many bits, with straight-through
  // gradients (model/fake_quant.h); adapters see them unrounded. 0: off. Not with gradients of base
  // weights.
  int activation_bits = 0;
  // Forward products of packed weights in fp32 instead of int8 (kernels::LinearForwardExact).
  bool exact_forward = false;

  // Another model's distribution to learn from (model/whole_head.h), or null.
  const Teacher* teacher = nullptr;
  // All logits at once instead of block by block: what the fused head saves is measured with it.
  bool whole_head = false;

  float* token_loss = nullptr;  // [tokens] loss of each supervised token, else 0; or null
  float head_skip_below = 0;    // kernels::HeadLossArgs::skip_below
  // Called with (layers run so far, hidden [tokens, hidden]) after the embedding or start state
  // and after each layer; and with (-1, normed hidden) after the final norm.
  std::function<void(int64_t, const float*)> observe;
  LinearObserver* linears = nullptr;  // sees the inputs and output gradients of every linear
  PartTimes* times = nullptr;         // the parts' seconds are added here
  PassPhases* phases = nullptr;       // added to
};

// logits [rows, vocab] = head(norm(hidden [rows, hidden])). Scratch: normed [rows, hidden], xa
// [rows, head.lora_r] (may be null when that is 0). Error: a streamed head could not be read.
Status ComputeLogits(ExecContext& ctx, const Model& model, int64_t rows, const float* hidden,
                     float* normed, float* xa, float* logits, const ExitHead& head = {});

struct PassMemory {
  int64_t activations = 0;  // kept from forward to backward
  // Working buffers of one layer and of the head, slots of layers that are not in memory.
  int64_t scratch = 0;
  int64_t total() const { return activations + scratch; }
};

class TrainingPass {
 public:
  // The model must outlive the pass. Batches may hold up to max_tokens tokens.
  TrainingPass(ExecContext& ctx, const Model& model, int64_t max_tokens);
  ~TrainingPass();
  TrainingPass(TrainingPass&&) noexcept;

  // What Run with these options takes, without running it.
  PassMemory MemoryNeeded(const PassOptions& options) const;
  // The same of a pass for batches of up to so many tokens.
  PassMemory MemoryNeeded(const PassOptions& options, int64_t max_tokens) const;

  // Loss over the supervised tokens (targets >= 0) and, with options.gradients, their gradients.
  // Error: wrong options, ids out of the vocabulary, positions out of the tables, a batch larger
  // than planned. A loss that is not finite is returned as it is.
  Result<kernels::HeadLossResult> Run(const TokenBatch& batch, const PassOptions& options);

  // Several micro-batches, each layer of all of them before the next layer (and before other
  // weights have to be there): with the options' own start_hidden, dropout_key and substream left
  // out, the results and the gradients are the same bits as those of Run on one after the other.
  // Takes MemoryNeeded().activations for each. REQUIRES options.gradients without the embedding's;
  // with more than one row, no teacher and no token_loss.
  struct GroupRow {
    const TokenBatch* batch = nullptr;
    const float* start_hidden = nullptr;
    uint64_t dropout_key = 0, substream = 0;
  };
  Result<std::vector<kernels::HeadLossResult>> RunGroup(std::span<const GroupRow> rows,
                                                        const PassOptions& options);

  // The layers [range.begin, range.end) without loss or saved state, in place on `hidden`
  // [tokens, hidden]: trunk, calibration, sharding. `lora` may be null. activation_bits,
  // exact_forward: as in PassOptions.
  Status Forward(const TokenBatch& batch, LayerRange range, const LoraAdapter* lora, float* hidden,
                 int activation_bits = 0, bool exact_forward = false);
  // One layer in place on `hidden`, with other weights than the model's (null: the model's) and an
  // observer (or null): a compressed candidate against the original, calibration inputs.
  Status ForwardLayer(const TokenBatch& batch, int64_t layer, const LayerWeights* weights,
                      LinearObserver* observer, float* hidden);
  // Embeddings of the batch -> hidden [tokens, hidden].
  Status Embed(const TokenBatch& batch, float* hidden);
  // Final norm and head (of the exit, when given) of `rows` rows -> logits [rows, vocab].
  Status Logits(int64_t rows, const float* hidden, float* logits, const ExitHead& head = {});

  PassMemory memory() const;  // what is allocated now
  int64_t max_tokens() const;
  // From now on batches may hold up to so many. Releases.
  void SetMaxTokens(int64_t max_tokens);
  // PassOptions::mlp_rows of Forward and ForwardLayer from now on (kMlpRows until then).
  void SetMlpRows(int64_t mlp_rows);
  void Release();  // gives that back until the next run

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgewise::model
