#include "model/weights.h"

#include <fmt/format.h>

#include "model/parameters.h"
#include "model/weight_table.h"
#include "tensor/dtype.h"

namespace edgewise::model {
namespace {

struct LinearNames {
  std::string_view name, module, gguf;
};
constexpr LinearNames kLinearNames[kLinearKinds] = {
    {"q_proj", "self_attn.q_proj", "attn_q"},   {"k_proj", "self_attn.k_proj", "attn_k"},
    {"v_proj", "self_attn.v_proj", "attn_v"},   {"o_proj", "self_attn.o_proj", "attn_output"},
    {"gate_proj", "mlp.gate_proj", "ffn_gate"}, {"up_proj", "mlp.up_proj", "ffn_up"},
    {"down_proj", "mlp.down_proj", "ffn_down"}};

const LinearNames& NamesOf(LinearKind kind) { return kLinearNames[static_cast<size_t>(kind)]; }

// transformers calls the norm before the MLP post_attention_layernorm, except where there is also
// one on the attention's output: then that one has the name.
std::string_view HfNormName(const ModelConfig& config, WeightRole role) {
  switch (role) {
    case WeightRole::kAttnNorm:
      return "input_layernorm";
    case WeightRole::kMlpNorm:
      return config.sandwich_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    case WeightRole::kAttnPostNorm:
      return "post_attention_layernorm";
    case WeightRole::kMlpPostNorm:
      return "post_feedforward_layernorm";
    case WeightRole::kQNorm:
      return "self_attn.q_norm";
    default:
      return "self_attn.k_norm";
  }
}

std::string_view GgufNormName(WeightRole role) {
  switch (role) {
    case WeightRole::kAttnNorm:
      return "attn_norm";
    case WeightRole::kMlpNorm:
      return "ffn_norm";
    case WeightRole::kAttnPostNorm:
      return "post_attention_norm";
    case WeightRole::kMlpPostNorm:
      return "post_ffw_norm";
    case WeightRole::kQNorm:
      return "attn_q_norm";
    default:
      return "attn_k_norm";
  }
}

// Where a weight's pointer is, in ModelWeights or (same member names) in GradientMap.
template <typename Layer>
auto& NormOf(Layer& layer, WeightRole role) {
  switch (role) {
    case WeightRole::kAttnNorm:
      return layer.attn_norm;
    case WeightRole::kMlpNorm:
      return layer.mlp_norm;
    case WeightRole::kAttnPostNorm:
      return layer.attn_post_norm;
    case WeightRole::kMlpPostNorm:
      return layer.mlp_post_norm;
    case WeightRole::kQNorm:
      return layer.q_norm;
    default:
      return layer.k_norm;
  }
}

}  // namespace

std::string_view LinearName(LinearKind kind) { return NamesOf(kind).name; }
std::string_view LinearModule(LinearKind kind) { return NamesOf(kind).module; }
std::string LinearPath(int64_t layer, LinearKind kind) {
  return fmt::format("model.layers.{}.{}", layer, LinearModule(kind));
}

LinearShape ShapeOf(const ModelConfig& c, LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
      return {c.hidden, c.q_dim()};
    case LinearKind::kK:
    case LinearKind::kV:
      return {c.hidden, c.kv_dim()};
    case LinearKind::kO:
      return {c.q_dim(), c.hidden};
    case LinearKind::kGate:
    case LinearKind::kUp:
      return {c.hidden, c.ffn};
    case LinearKind::kDown:
      return {c.ffn, c.hidden};
  }
  return {};
}

bool HasBias(const ModelConfig& c, LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
    case LinearKind::kK:
    case LinearKind::kV:
      return c.qkv_bias;
    case LinearKind::kO:
      return c.o_bias;
    default:
      return c.mlp_bias;
  }
}

std::vector<WeightId> ListWeights(const ModelConfig& c) {
  std::vector<WeightId> ids = {{WeightRole::kEmbedding}};
  for (int64_t layer = 0; layer < c.num_layers(); ++layer) {
    auto norm = [&](WeightRole role, bool present) {
      if (present) ids.push_back({role, layer});
    };
    auto linears = [&](std::initializer_list<LinearKind> kinds) {
      for (LinearKind kind : kinds) {
        ids.push_back({WeightRole::kLinear, layer, kind});
        if (HasBias(c, kind)) ids.push_back({WeightRole::kBias, layer, kind});
      }
    };
    norm(WeightRole::kAttnNorm, true);
    linears({LinearKind::kQ, LinearKind::kK, LinearKind::kV});
    norm(WeightRole::kQNorm, c.qk_norm);
    norm(WeightRole::kKNorm, c.qk_norm);
    linears({LinearKind::kO});
    norm(WeightRole::kAttnPostNorm, c.sandwich_norms);
    norm(WeightRole::kMlpNorm, true);
    linears({LinearKind::kGate, LinearKind::kUp, LinearKind::kDown});
    norm(WeightRole::kMlpPostNorm, c.sandwich_norms);
  }
  ids.push_back({WeightRole::kFinalNorm});
  if (!c.tied) ids.push_back({WeightRole::kHead});
  return ids;
}

std::string HfName(const ModelConfig& config, const WeightId& id) {
  switch (id.role) {
    case WeightRole::kEmbedding:
      return "model.embed_tokens.weight";
    case WeightRole::kFinalNorm:
      return "model.norm.weight";
    case WeightRole::kHead:
      return "lm_head.weight";
    case WeightRole::kLinear:
      return LinearPath(id.layer, id.kind) + ".weight";
    case WeightRole::kBias:
      return LinearPath(id.layer, id.kind) + ".bias";
    default:
      return fmt::format("model.layers.{}.{}.weight", id.layer, HfNormName(config, id.role));
  }
}

std::string GgufName(const WeightId& id) {
  switch (id.role) {
    case WeightRole::kEmbedding:
      return "token_embd.weight";
    case WeightRole::kFinalNorm:
      return "output_norm.weight";
    case WeightRole::kHead:
      return "output.weight";
    case WeightRole::kLinear:
      return fmt::format("blk.{}.{}.weight", id.layer, NamesOf(id.kind).gguf);
    case WeightRole::kBias:
      return fmt::format("blk.{}.{}.bias", id.layer, NamesOf(id.kind).gguf);
    default:
      return fmt::format("blk.{}.{}.weight", id.layer, GgufNormName(id.role));
  }
}

std::vector<int64_t> ShapeOf(const ModelConfig& c, const WeightId& id) {
  switch (id.role) {
    case WeightRole::kEmbedding:
    case WeightRole::kHead:
      return {c.vocab, c.hidden};
    case WeightRole::kLinear: {
      const LinearShape s = ShapeOf(c, id.kind);
      return {s.out, s.in};
    }
    case WeightRole::kBias:
      return {ShapeOf(c, id.kind).out};
    case WeightRole::kQNorm:
    case WeightRole::kKNorm:
      return {c.head_dim};
    default:
      return {c.hidden};
  }
}

const kernels::WeightRef& MatrixOf(const ModelWeights& weights, const WeightId& id) {
  if (id.role == WeightRole::kEmbedding) return weights.embedding;
  if (id.role == WeightRole::kHead) return weights.head;
  return weights.layers[static_cast<size_t>(id.layer)][id.kind].weight;
}

kernels::WeightRef& MatrixOf(ModelWeights& weights, const WeightId& id) {
  return const_cast<kernels::WeightRef&>(MatrixOf(std::as_const(weights), id));
}

const float*& VectorOf(ModelWeights& weights, const WeightId& id) {
  if (id.role == WeightRole::kFinalNorm) return weights.final_norm;
  LayerWeights& layer = weights.layers[static_cast<size_t>(id.layer)];
  if (id.role == WeightRole::kBias) return layer[id.kind].bias;
  return NormOf(layer, id.role);
}

const float* VectorOf(const ModelWeights& weights, const WeightId& id) {
  return VectorOf(const_cast<ModelWeights&>(weights), id);
}

float*& GradientOf(GradientMap& gradients, const WeightId& id) {
  if (id.role == WeightRole::kEmbedding) return gradients.embedding;
  if (id.role == WeightRole::kFinalNorm) return gradients.final_norm;
  if (id.role == WeightRole::kHead) return gradients.head;
  LayerGradients& layer = gradients.layers[static_cast<size_t>(id.layer)];
  LinearGradients& linear = layer.linears[static_cast<size_t>(id.kind)];
  if (id.role == WeightRole::kLinear) return linear.weight;
  if (id.role == WeightRole::kBias) return linear.bias;
  return NormOf(layer, id.role);
}

}  // namespace edgewise::model
