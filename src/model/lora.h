// Low-rank adapters (LoRA, arXiv 2106.09685) on the linears of a model, with PEFT's conventions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "formats/peft.h"
#include "model/config.h"
#include "model/weights.h"

namespace edgewise::model {

class Model;

// A half-open range of layers [begin, end).
struct LayerRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool contains(int64_t layer) const { return begin <= layer && layer < end; }
};

// r, alpha, dropout, targets, rank and alpha patterns, layers: as PEFT's adapter_config.json.
using formats::LoraConfig;

// The layers [L - n, L): MLX-style "last n layers" for LoraConfig::layers_to_transform.
std::vector<int64_t> LastLayers(const ModelConfig& config, int64_t n);

// y += scale (x A^T) B^T.
struct LoraSlot {
  int64_t r = 0, in = 0, out = 0;
  float scale = 0;
  float* a = nullptr;  // [r, in]
  float* b = nullptr;  // [out, r]
};

class LoraAdapter {
 public:
  // A ~ U(-1/sqrt(in), 1/sqrt(in)) (kaiming-uniform with a = sqrt 5, PEFT's default), a pure
  // function of (seed, layer, linear); B = 0. Error: bad ranges, targets that match nothing (with
  // the names that exist).
  static Result<LoraAdapter> Create(const ModelConfig& config, const LoraConfig& lora,
                                    uint64_t seed);

  LoraAdapter(LoraAdapter&&) = default;
  LoraAdapter& operator=(LoraAdapter&&) = default;

  const LoraConfig& lora_config() const { return lora_; }
  int64_t num_layers() const { return static_cast<int64_t>(slots_.size()); }
  // Null when this linear has no adapter.
  const LoraSlot* slot(int64_t layer, LinearKind kind) const {
    const LoraSlot& s = slots_[static_cast<size_t>(layer)][static_cast<size_t>(kind)];
    return s.r > 0 ? &s : nullptr;
  }
  int64_t parameter_count() const { return values_.size(); }
  int64_t max_rank() const { return max_rank_; }
  // All values, contiguous: layer by layer, linear by linear, A then B.
  FloatBuffer& values() { return values_; }
  const FloatBuffer& values() const { return values_; }

 private:
  friend Result<LoraAdapter> LoadPeftAdapter(const std::string& dir, const ModelConfig& config);
  using Slots = std::vector<std::array<LoraSlot, kLinearKinds>>;

  // Allocates the values of `slots` (r, in, out, scale filled in) and points the slots at them.
  static Result<LoraAdapter> WithSlots(LoraConfig lora, Slots slots);
  LoraAdapter() = default;

  LoraConfig lora_;
  Slots slots_;
  FloatBuffer values_;
  int64_t max_rank_ = 0;
};

// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": PEFT's tensor name.
std::string PeftTensorName(int64_t layer, LinearKind kind, bool b);

// A PEFT adapter directory (adapter_config.json, adapter_model.safetensors) for this model. Error:
// options that change the arithmetic and that we do not compute, shapes that do not fit, missing or
// unexpected tensors.
Result<LoraAdapter> LoadPeftAdapter(const std::string& dir, const ModelConfig& config);
// Writes such a directory (created when absent). `base_model` becomes base_model_name_or_path.
Status SavePeftAdapter(const std::string& dir, const LoraAdapter& adapter,
                       const std::string& base_model);

// W += scale B A for every slot; the model becomes trainable (owned fp32 weights).
Status MergeLora(Model& model, const LoraAdapter& adapter);

}  // namespace edgewise::model
