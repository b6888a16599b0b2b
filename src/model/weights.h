// The weights of a model as the blocks read them. Pointers only; Model owns the storage.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/weight.h"
#include "model/config.h"

namespace edgewise::model {

// The linear layers of a block, in the order in which a forward pass uses them.
enum class LinearKind : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kLinearKinds = 7;
inline constexpr std::array<LinearKind, kLinearKinds> kAllLinears = {
    LinearKind::kQ,    LinearKind::kK,  LinearKind::kV,   LinearKind::kO,
    LinearKind::kGate, LinearKind::kUp, LinearKind::kDown};

std::string_view LinearName(LinearKind kind);    // "q_proj"
std::string_view LinearModule(LinearKind kind);  // "self_attn.q_proj"
// "model.layers.3.self_attn.q_proj", as transformers names the module.
std::string LinearPath(int64_t layer, LinearKind kind);

struct LinearShape {
  int64_t in = 0, out = 0;
};
LinearShape ShapeOf(const ModelConfig& config, LinearKind kind);
bool HasBias(const ModelConfig& config, LinearKind kind);

// y = x W^T + bias. The weight may be dense (f32, f16, bf16) or packed.
struct Linear {
  kernels::WeightRef weight;    // [out, in]
  const float* bias = nullptr;  // [out] or null
};

struct LayerWeights {
  std::array<Linear, kLinearKinds> linears;
  // RMSNorm gains, fp32; null where the architecture has none.
  const float* attn_norm = nullptr;       // [hidden], before attention
  const float* mlp_norm = nullptr;        // [hidden], before the MLP
  const float* attn_post_norm = nullptr;  // [hidden], on the attention's output (sandwich)
  const float* mlp_post_norm = nullptr;   // [hidden], on the MLP's output (sandwich)
  const float* q_norm = nullptr;          // [head_dim]
  const float* k_norm = nullptr;          // [head_dim]

  const Linear& operator[](LinearKind kind) const { return linears[static_cast<size_t>(kind)]; }
  Linear& operator[](LinearKind kind) { return linears[static_cast<size_t>(kind)]; }
};

struct ModelWeights {
  kernels::WeightRef embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  kernels::WeightRef head;            // [vocab, hidden]; the embedding itself when tied
};

// Bytes that the weight matrices, norms and biases take (a tied head counts once).
int64_t WeightBytes(const ModelConfig& config, const ModelWeights& weights);

}  // namespace edgewise::model
