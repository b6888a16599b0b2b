// What an optimiser sees: named arrays of values and gradients, whether they are LoRA factors or
// the base weights themselves. And what the backward pass sees: where each gradient goes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "model/lora.h"
#include "model/model.h"

namespace edgewise::model {

// Gradients are added to; null: not wanted (and not computed).
struct LinearGradients {
  float* weight = nullptr;  // [out, in]
  float* bias = nullptr;    // [out]
  float* lora_a = nullptr;  // [r, in]
  float* lora_b = nullptr;  // [out, r]
};

struct LayerGradients {
  std::array<LinearGradients, kLinearKinds> linears;
  float* attn_norm = nullptr;
  float* mlp_norm = nullptr;
  float* attn_post_norm = nullptr;
  float* mlp_post_norm = nullptr;
  float* q_norm = nullptr;
  float* k_norm = nullptr;

  const LinearGradients& operator[](LinearKind kind) const {
    return linears[static_cast<size_t>(kind)];
  }
  bool any() const;
};

struct GradientMap {
  std::vector<LayerGradients> layers;
  float* embedding = nullptr;  // [vocab, hidden]
  float* final_norm = nullptr;
  float* head = nullptr;  // [vocab, hidden]; the same pointer as `embedding` when tied

  // The lowest layer with a gradient; num_layers when there is none. The embedding counts as 0.
  int64_t first_layer() const;
};

struct Parameter {
  std::string name;  // PEFT tensor name (LoRA) or transformers parameter name (full)
  std::vector<int64_t> shape;
  int64_t count = 0;
  float* value = nullptr;
  float* grad = nullptr;
};

class ParameterSet {
 public:
  // The factors of the adapter's slots in `layers`. The adapter must outlive the set.
  static ParameterSet ForLora(LoraAdapter& adapter, LayerRange layers);
  static ParameterSet ForLora(LoraAdapter& adapter) {
    return ForLora(adapter, {0, adapter.num_layers()});
  }
  // Every base weight; a tied embedding once, with both gradients summed. The model must be
  // trainable (Model::MakeTrainable) and outlive the set.
  static Result<ParameterSet> ForModel(Model& model);

  ParameterSet(ParameterSet&&) = default;
  ParameterSet& operator=(ParameterSet&&) = default;

  const std::vector<Parameter>& params() const { return params_; }
  const GradientMap& gradients() const { return map_; }
  int64_t count() const { return count_; }
  // All gradients, contiguous, in the order of params().
  FloatBuffer& grads() { return grads_; }
  void ZeroGrads() { grads_.Zero(); }
  // Euclidean norm of all gradients (double, fixed order).
  double GradNorm(ExecContext& ctx) const;

 private:
  ParameterSet() = default;
  void Add(std::string name, std::vector<int64_t> shape, float* value, float** grad_slot);
  void AllocateGrads();

  std::vector<Parameter> params_;
  std::vector<float**> grad_slots_;  // where in map_ each gradient pointer goes
  GradientMap map_;
  FloatBuffer grads_;
  int64_t count_ = 0;
};

}  // namespace edgewise::model
