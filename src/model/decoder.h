// Cached inference: prefill in chunks, then one token at a time. No allocation after creation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "exec/context.h"
#include "model/kv_cache.h"
#include "model/lora.h"
#include "model/model.h"

namespace edgewise::model {

struct LayerStackOptions {
  int64_t max_rows = 1;     // rows of one Forward call
  int64_t max_context = 1;  // positions
  KvForm kv_form = KvForm::kF32;
  const LoraAdapter* lora = nullptr;  // must outlive the stack; null: none
  int64_t lora_begin = 0;             // first adapted layer
  int activation_bits = 0;            // PassOptions::activation_bits
  bool exact_forward = false;         // PassOptions::exact_forward
};

// Layers [begin, end) of a model on rows of hidden states, with a KV cache: what a device that
// holds a part of a model runs, and what a decoder strings together.
class LayerStack {
 public:
  // The model must outlive the stack.
  static Result<LayerStack> Create(ExecContext& ctx, const Model& model, LayerRange range,
                                   const LayerStackOptions& options);
  ~LayerStack();
  LayerStack(LayerStack&&) noexcept;

  // Runs rows at positions cache.length() ..., in place on hidden [rows, hidden], writing their
  // keys and values into `cache` (the caller calls cache.Advance(rows) when all stacks have run).
  // Error: more rows than planned, no room in the cache.
  Status Forward(KvCache& cache, int64_t rows, float* hidden);
  LayerRange range() const;
  int64_t scratch_bytes() const;

 private:
  struct Impl;
  explicit LayerStack(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct DecoderOptions {
  int64_t max_context = 0;  // 0: the model's max_positions
  int64_t prefill_chunk = 256;
  KvForm kv_form = KvForm::kF32;
  int activation_bits = 0;  // PassOptions::activation_bits; of exits, theirs are taken
};

class Decoder {
 public:
  static Result<std::unique_ptr<Decoder>> Create(ExecContext& ctx, const Model& model,
                                                 DecoderOptions options = {},
                                                 const LoraAdapter* lora = nullptr);

  // Appends tokens; logits [vocab] of the last one. Error: empty, ids out of range, context full
  // (says how long it may be).
  Result<std::span<const float>> Prefill(std::span<const int32_t> tokens);
  // Appends one token; its logits [vocab], valid until the next call.
  Result<std::span<const float>> Step(int32_t token);

  int64_t length() const { return cache_.length(); }
  int64_t max_context() const { return cache_.capacity(); }
  void Truncate(int64_t length) { cache_.Truncate(length); }
  const KvCache& cache() const { return cache_; }
  const Model& model() const { return model_; }
  // Bytes of the KV cache and of the working buffers.
  int64_t kv_bytes() const { return cache_.bytes(); }
  int64_t scratch_bytes() const;

 private:
  Decoder(ExecContext& ctx, const Model& model, KvCache cache, LayerStack stack, int64_t chunk);
  Status Append(std::span<const int32_t> tokens);
  Result<std::span<const float>> LastLogits(int64_t rows);

  ExecContext& ctx_;
  const Model& model_;
  KvCache cache_;
  LayerStack stack_;
  int64_t chunk_;
  FloatBuffer hidden_;  // [chunk, hidden]
  FloatBuffer normed_;  // [hidden]
  FloatBuffer logits_;  // [vocab]
};

}  // namespace edgewise::model
