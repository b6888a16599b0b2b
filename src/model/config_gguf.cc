// Model description from GGUF metadata (keys as llama.cpp writes and reads them).
#include <fmt/format.h>

#include <cmath>

#include "formats/gguf.h"
#include "model/config.h"

namespace edgewise::model {
namespace {

struct ArchitectureRow {
  std::string_view gguf, name, model_type;
  bool gemma, sandwich, qk_norm;
  int64_t window_pattern;  // of every so many layers the last has full attention; 0: all alike
  float attn_softcap, logit_softcap;
  bool local_rope;  // windowed layers have a rope base of their own
};

constexpr ArchitectureRow kArchitectures[] = {
    {"llama", "LlamaForCausalLM", "llama", false, false, false, 0, 0, 0, false},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", false, false, false, 0, 0, 0, false},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", false, false, true, 0, 0, 0, false},
    {"gemma", "GemmaForCausalLM", "gemma", true, false, false, 0, 0, 0, false},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", true, true, false, 2, 50, 30, false},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", true, true, true, 6, 0, 0, true},
};

// The metadata of one architecture: keys are "<arch>.<name>".
class Keys {
 public:
  Keys(const formats::GgufFile& file, std::string_view prefix) : file_(file), prefix_(prefix) {}
  std::string Key(std::string_view name) const { return fmt::format("{}.{}", prefix_, name); }
  bool Has(std::string_view name) const { return file_.Has(Key(name)); }

  Result<int64_t> Int(std::string_view name, int64_t low, int64_t high) const {
    EW_ASSIGN(const int64_t value, file_.Int(Key(name)));
    if (value < low || value > high) {
      return BadInput(fmt::format("{}: {} is {}, which is not in {} .. {}", file_.path(), Key(name),
                                  value, low, high));
    }
    return value;
  }
  Result<int64_t> IntOr(std::string_view name, int64_t fallback, int64_t low, int64_t high) const {
    if (!Has(name)) return fallback;
    return Int(name, low, high);
  }
  Result<double> FloatOr(std::string_view name, double fallback) const {
    return file_.FloatOr(Key(name), fallback);
  }

 private:
  const formats::GgufFile& file_;
  std::string prefix_;
};

Result<RopeConfig> ReadRope(const formats::GgufFile& file, const Keys& keys, int64_t head_dim) {
  RopeConfig rope;
  EW_ASSIGN(rope.theta, keys.FloatOr("rope.freq_base", 10000.0));
  EW_ASSIGN(const std::string type, file.StringOr(keys.Key("rope.scaling.type"), "none"));
  if (type == "linear") {
    rope.type = RopeType::kLinear;
    EW_ASSIGN(rope.factor, keys.FloatOr("rope.scaling.factor", 1.0));
  } else if (type != "none") {
    return Unsupported(fmt::format("{}: rope scaling '{}' is not supported (none and linear are)",
                                   file.path(), type));
  }
  EW_ASSIGN(const int64_t rotated,
            keys.IntOr("rope.dimension_count", head_dim, 1, int64_t{1} << 20));
  if (rotated != head_dim) {
    return Unsupported(fmt::format("{}: only {} of {} dimensions of a head are rotated",
                                   file.path(), rotated, head_dim));
  }
  if (const formats::GgufTensor* t = file.FindTensor("rope_freqs.weight"); t != nullptr) {
    if (t->elements() != head_dim / 2) {
      return BadInput(fmt::format("{}: rope_freqs.weight has {} values, {} are needed", file.path(),
                                  t->elements(), head_dim / 2));
    }
    rope.divisors.resize(static_cast<size_t>(head_dim / 2));
    const int64_t rows = t->elements() / std::max<int64_t>(t->row_elements(), 1);
    EW_RETURN_IF_ERROR(file.Dequantize(*t, 0, rows, rope.divisors));
  }
  return rope;
}

}  // namespace

Result<ModelConfig> ConfigFromGguf(const formats::GgufFile& file) {
  EW_ASSIGN(const std::string name, file.String("general.architecture"));
  const ArchitectureRow* arch = nullptr;
  std::vector<std::string_view> known;
  for (const ArchitectureRow& row : kArchitectures) {
    if (row.gguf == name) arch = &row;
    known.push_back(row.gguf);
  }
  if (arch == nullptr) {
    return Unsupported(fmt::format("{}: architecture '{}' is not supported; supported are {}",
                                   file.path(), name, fmt::join(known, ", ")));
  }
  const Keys keys(file, name);

  ModelConfig c;
  c.architecture = arch->name;
  c.model_type = arch->model_type;
  EW_ASSIGN(c.hidden, keys.Int("embedding_length", 1, 1 << 20));
  EW_ASSIGN(c.ffn, keys.Int("feed_forward_length", 1, 1 << 22));
  EW_ASSIGN(const int64_t layers, keys.Int("block_count", 1, 4096));
  EW_ASSIGN(c.heads, keys.Int("attention.head_count", 1, 1 << 14));
  EW_ASSIGN(c.kv_heads, keys.IntOr("attention.head_count_kv", c.heads, 1, 1 << 14));
  EW_ASSIGN(c.head_dim, keys.IntOr("attention.key_length", c.hidden / c.heads, 2, 1 << 14));
  EW_ASSIGN(const int64_t value_dim, keys.IntOr("attention.value_length", c.head_dim, 2, 1 << 14));
  if (value_dim != c.head_dim) {
    return Unsupported(fmt::format("{}: keys of {} and values of {} per head", file.path(),
                                   c.head_dim, value_dim));
  }
  EW_ASSIGN(c.max_positions, keys.IntOr("context_length", 2048, 1, (int64_t{1} << 31) - 1));
  EW_ASSIGN(c.norm_eps, keys.FloatOr("attention.layer_norm_rms_epsilon", 1e-6));
  EW_ASSIGN(const int64_t experts, keys.IntOr("expert_count", 0, 0, 1 << 20));
  if (experts > 0) {
    return Unsupported(
        fmt::format("{}: a mixture of {} experts is not supported", file.path(), experts));
  }

  // Sizes that only the tensors show.
  EW_ASSIGN(const formats::GgufTensor* embedding, file.Tensor("token_embd.weight"));
  if (embedding->shape.size() != 2) {
    return BadInput(fmt::format("{}: token_embd.weight has {} dimensions instead of 2", file.path(),
                                embedding->shape.size()));
  }
  c.vocab = embedding->shape[0];
  c.tied = file.FindTensor("output.weight") == nullptr;
  c.qkv_bias = file.FindTensor("blk.0.attn_q.bias") != nullptr;
  c.o_bias = file.FindTensor("blk.0.attn_output.bias") != nullptr;
  c.mlp_bias = file.FindTensor("blk.0.ffn_gate.bias") != nullptr;

  c.qk_norm = arch->qk_norm;
  c.sandwich_norms = arch->sandwich;
  // Gemma's gains are stored as 1 + w in these files: norm_plus_one stays false.
  c.activation = arch->gemma ? kernels::Activation::kGeluTanh : kernels::Activation::kSilu;
  if (arch->gemma) c.embed_scale = static_cast<float>(std::sqrt(static_cast<double>(c.hidden)));
  // The 27B models of Gemma 2 and 3 scale by hidden / heads, which no key says.
  const bool by_width = arch->sandwich && ((arch->window_pattern == 2 && layers == 46) ||
                                           (arch->window_pattern == 6 && layers == 62));
  const double pre_scale = static_cast<double>(by_width ? c.hidden / c.heads : c.head_dim);
  c.attn_scale = static_cast<float>(1.0 / std::sqrt(pre_scale));
  EW_ASSIGN(const double attn_cap, keys.FloatOr("attn_logit_softcapping", arch->attn_softcap));
  EW_ASSIGN(const double logit_cap, keys.FloatOr("final_logit_softcapping", arch->logit_softcap));
  c.attn_softcap = static_cast<float>(attn_cap);
  c.logit_softcap = static_cast<float>(logit_cap);

  EW_ASSIGN(RopeConfig rope, ReadRope(file, keys, c.head_dim));
  c.ropes.push_back(std::move(rope));
  if (arch->local_rope) {
    EW_ASSIGN(const double theta, keys.FloatOr("rope.freq_base_swa", 10000.0));
    c.ropes.push_back(RopeWithTheta(theta));
  }
  EW_ASSIGN(const int64_t window,
            keys.IntOr("attention.sliding_window", 0, 0, (int64_t{1} << 31) - 1));
  c.layers.assign(static_cast<size_t>(layers), LayerConfig{});
  for (int64_t i = 0; i < layers; ++i) {
    LayerConfig& layer = c.layers[static_cast<size_t>(i)];
    const bool full = arch->window_pattern > 0 && (i + 1) % arch->window_pattern == 0;
    if (full) continue;
    layer.window = window;
    layer.rope = arch->local_rope ? 1 : 0;
  }
  EW_ASSIGN(c.bos_id, file.IntOr("tokenizer.ggml.bos_token_id", -1));
  EW_ASSIGN(const int64_t eos, file.IntOr("tokenizer.ggml.eos_token_id", -1));
  if (eos >= 0) c.eos_ids.push_back(eos);
  EW_RETURN_IF_ERROR(ValidateConfig(c).WithContext(file.path()));
  return c;
}

}  // namespace edgewise::model
