// What a decoder-only transformer looks like, as data. A new architecture is a new description
// (config_hf.cc, config_gguf.cc), never a new block: the block reads these flags.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/elementwise.h"

namespace edgewise::formats {
class GgufFile;
}  // namespace edgewise::formats

namespace edgewise::model {

enum class RopeType { kDefault, kLinear, kLlama3 };

// Rotary position embedding of a group of layers; frequencies f_i = theta^(-2i/D), then scaled.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;  // kLinear, kLlama3
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  int64_t original_max_positions = 0;  // kLlama3
  // GGUF `rope_freqs.weight`: frequency i is divided by divisors[i]; empty or D/2 values.
  std::vector<float> divisors;
};

inline RopeConfig RopeWithTheta(double theta) {
  RopeConfig rope;
  rope.theta = theta;
  return rope;
}

struct LayerConfig {
  int64_t window = 0;  // > 0: position q sees the keys q - window + 1 .. q
  int rope = 0;        // index into ModelConfig::ropes
};

struct ModelConfig {
  std::string architecture;  // transformers class, for example "LlamaForCausalLM"
  std::string model_type;    // transformers model_type, for example "llama"
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;  // even; not always hidden / heads
  int64_t vocab = 0;
  int64_t max_positions = 0;
  double norm_eps = 1e-6;
  kernels::Activation activation = kernels::Activation::kSilu;
  bool norm_plus_one = false;   // gains are 1 + weight (Gemma)
  bool qk_norm = false;         // RMSNorm over head_dim on q and k, before RoPE
  bool sandwich_norms = false;  // a norm after attention and after the MLP too, before the residual
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  float embed_scale = 1.0f;  // already rounded to the stored weight type where the model says so
  float attn_scale = 0.0f;   // of q k^T
  float attn_softcap = 0.0f, logit_softcap = 0.0f;  // 0: none
  bool tied = false;                                // the head is the embedding
  std::vector<LayerConfig> layers;
  std::vector<RopeConfig> ropes;  // at least one
  int64_t bos_id = -1;            // -1: none
  std::vector<int64_t> eos_ids;

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
  int64_t q_dim() const { return heads * head_dim; }
  int64_t kv_dim() const { return kv_heads * head_dim; }
  // Number of weights of the base model; a tied head counts once.
  int64_t parameter_count() const;
};

// Checks every range and relation (sizes in sane limits, heads divisible, ropes present); the error
// names the field. The readers below call it; call it on configs made by hand.
Status ValidateConfig(const ModelConfig& config);

// From `config.json` of transformers v4 (`rope_theta`, `rope_scaling`, `torch_dtype`) or v5
// (`rope_parameters`, `dtype`). Error: the offending key, what it holds and what is allowed; for an
// unknown architecture the ones that are known.
Result<ModelConfig> ConfigFromHf(const nlohmann::json& json);

// From GGUF metadata and tensor list (vocabulary size, tied output and biases show there).
Result<ModelConfig> ConfigFromGguf(const formats::GgufFile& file);

// Shapes for benchmarks with random weights: "smollm2-135m", "qwen2.5-0.5b", "tinyllama-1.1b",
// "llama-7b". Error: lists the names.
Result<ModelConfig> NamedShape(std::string_view name);
std::vector<std::string> NamedShapes();

}  // namespace edgewise::model
