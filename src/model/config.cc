#include "model/config.h"

#include <fmt/format.h>

#include <cmath>

#include "model/weights.h"

namespace edgewise::model {
namespace {

struct Limit {
  std::string_view name;
  int64_t value, low, high;
};

struct Shape {
  std::string_view name;
  int64_t hidden, ffn, layers, heads, kv_heads, vocab, max_positions;
  bool tied, qkv_bias;
  double theta, eps;
};

constexpr Shape kShapes[] = {
    {"smollm2-135m", 576, 1536, 30, 9, 3, 49152, 8192, true, false, 1e5, 1e-5},
    {"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 151936, 32768, true, true, 1e6, 1e-6},
    {"tinyllama-1.1b", 2048, 5632, 22, 32, 4, 32000, 2048, false, false, 1e4, 1e-5},
    {"llama-7b", 4096, 11008, 32, 32, 32, 32000, 4096, false, false, 1e4, 1e-5},
};

}  // namespace

int64_t ModelConfig::parameter_count() const {
  int64_t per_layer = (sandwich_norms ? 4 : 2) * hidden + (qk_norm ? 2 * head_dim : 0);
  for (LinearKind kind : kAllLinears) {
    const LinearShape shape = ShapeOf(*this, kind);
    per_layer += shape.in * shape.out + (HasBias(*this, kind) ? shape.out : 0);
  }
  return vocab * hidden * (tied ? 1 : 2) + hidden + num_layers() * per_layer;
}

Status ValidateConfig(const ModelConfig& c) {
  // The upper limits are far above any model and far below where a product could overflow.
  const Limit limits[] = {
      {"hidden size", c.hidden, 1, 1 << 20},
      {"feed-forward (intermediate) size", c.ffn, 1, 1 << 22},
      {"number of layers", c.num_layers(), 1, 4096},
      {"number of attention heads", c.heads, 1, 1 << 14},
      {"number of key/value heads", c.kv_heads, 1, 1 << 14},
      {"head dimension", c.head_dim, 2, 1 << 14},
      {"vocabulary size", c.vocab, 1, 1 << 24},
      {"maximum number of positions", c.max_positions, 1, (int64_t{1} << 31) - 1},
  };
  for (const Limit& l : limits) {
    if (l.value < l.low || l.value > l.high) {
      return BadInput(
          fmt::format("{} is {}, which is not in {} .. {}", l.name, l.value, l.low, l.high));
    }
  }
  if (c.heads % c.kv_heads != 0) {
    return BadInput(fmt::format("{} attention heads cannot share {} key/value heads evenly",
                                c.heads, c.kv_heads));
  }
  if (c.head_dim % 2 != 0) {
    return BadInput(
        fmt::format("head dimension {} is odd: rotary embedding needs pairs", c.head_dim));
  }
  if (c.q_dim() > (1 << 22)) {
    return BadInput(fmt::format("{} heads of {} are {} wide, more than {}", c.heads, c.head_dim,
                                c.q_dim(), 1 << 22));
  }
  if (!(c.norm_eps > 0 && c.norm_eps < 1)) {
    return BadInput(fmt::format("norm epsilon is {}, which is not in (0, 1)", c.norm_eps));
  }
  for (auto [name, value] :
       {std::pair{"attention scale", c.attn_scale}, std::pair{"embedding scale", c.embed_scale}}) {
    if (!(std::isfinite(value) && value > 0)) {
      return BadInput(fmt::format("{} is {}, which is not a positive number", name, value));
    }
  }
  for (auto [name, value] : {std::pair{"attention softcap", c.attn_softcap},
                             std::pair{"logit softcap", c.logit_softcap}}) {
    if (!(std::isfinite(value) && value >= 0)) {
      return BadInput(fmt::format("{} is {}, which is negative or not finite", name, value));
    }
  }
  if (c.ropes.empty()) return BadInput("no rotary embedding is described");
  for (const RopeConfig& r : c.ropes) {
    if (!(std::isfinite(r.theta) && r.theta > 0)) {
      return BadInput(fmt::format("rope theta is {}, which is not a positive number", r.theta));
    }
    if (!(std::isfinite(r.factor) && r.factor > 0)) {
      return BadInput(fmt::format("rope factor is {}, which is not a positive number", r.factor));
    }
    if (r.type == RopeType::kLlama3 &&
        !(r.low_freq_factor > 0 && r.high_freq_factor > r.low_freq_factor &&
          std::isfinite(r.high_freq_factor) && r.original_max_positions > 0)) {
      return BadInput(
          fmt::format("llama3 rope scaling needs 0 < low_freq_factor < high_freq_factor and "
                      "original_max_position_embeddings > 0; it has {}, {} and {}",
                      r.low_freq_factor, r.high_freq_factor, r.original_max_positions));
    }
    if (!r.divisors.empty() && static_cast<int64_t>(r.divisors.size()) != c.head_dim / 2) {
      return BadInput(fmt::format("there are {} rope frequency divisors for head dimension {}",
                                  r.divisors.size(), c.head_dim));
    }
    for (float d : r.divisors) {
      if (!(std::isfinite(d) && d > 0)) {
        return BadInput(fmt::format("a rope frequency divisor is {}, not a positive number", d));
      }
    }
  }
  for (size_t i = 0; i < c.layers.size(); ++i) {
    const LayerConfig& layer = c.layers[i];
    if (layer.window < 0 || layer.rope < 0 || static_cast<size_t>(layer.rope) >= c.ropes.size()) {
      return BadInput(
          fmt::format("layer {} has window {} and rope {}", i, layer.window, layer.rope));
    }
  }
  return Status::Ok();
}

Result<ModelConfig> NamedShape(std::string_view name) {
  for (const Shape& s : kShapes) {
    if (s.name != name) continue;
    ModelConfig c;
    c.architecture = s.qkv_bias ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
    c.model_type = s.qkv_bias ? "qwen2" : "llama";
    c.hidden = s.hidden;
    c.ffn = s.ffn;
    c.heads = s.heads;
    c.kv_heads = s.kv_heads;
    c.head_dim = s.hidden / s.heads;
    c.vocab = s.vocab;
    c.max_positions = s.max_positions;
    c.norm_eps = s.eps;
    c.qkv_bias = s.qkv_bias;
    c.attn_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
    c.tied = s.tied;
    c.layers.assign(static_cast<size_t>(s.layers), LayerConfig{});
    c.ropes = {RopeWithTheta(s.theta)};
    EW_RETURN_IF_ERROR(ValidateConfig(c));
    return c;
  }
  return InvalidArgument(
      fmt::format("no shape is called '{}'; there are: {}", name, fmt::join(NamedShapes(), ", ")));
}

std::vector<std::string> NamedShapes() {
  std::vector<std::string> names;
  for (const Shape& s : kShapes) names.emplace_back(s.name);
  return names;
}

}  // namespace edgewise::model
