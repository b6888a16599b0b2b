// Hugging Face config.json, of transformers v4 and v5. Architectures are rows of a table.
#include <fmt/format.h>

#include <cmath>

#include "model/config.h"
#include "model/json_keys.h"
#include "tensor/dtype.h"

namespace edgewise::model {
namespace {

// What an architecture is, and the defaults of its transformers config class.
struct ArchitectureRow {
  std::string_view name, model_type;
  int64_t kv_heads;  // 0: as many as heads
  int64_t head_dim;  // 0: hidden / heads
  int64_t max_positions;
  double theta;
  bool tied;
  bool gemma;      // gains 1 + w, scaled embeddings, GELU by default
  bool sandwich;   // four norms per block
  bool qk_norm;    // norms on q and k
  bool qkv_bias;   // always, whatever attention_bias says
  bool bias_keys;  // attention_bias (q, k, v, o) and mlp_bias are honoured
  bool softcaps;
  // Which layers have a sliding window when the file has no layer_types.
  enum class Windows { kNone, kAll, kUpper, kAlternate, kPattern } windows;
  int64_t window;  // default of sliding_window; 0: null
};

using Windows = ArchitectureRow::Windows;
constexpr ArchitectureRow kArchitectures[] = {
    {"LlamaForCausalLM", "llama", 0, 0, 2048, 1e4, false, false, false, false, false, true, false,
     Windows::kNone, 0},
    {"MistralForCausalLM", "mistral", 8, 0, 131072, 1e4, false, false, false, false, false, false,
     false, Windows::kAll, 4096},
    {"Qwen2ForCausalLM", "qwen2", 32, 0, 32768, 1e4, false, false, false, false, true, false, false,
     Windows::kUpper, 4096},
    {"Qwen3ForCausalLM", "qwen3", 32, 128, 32768, 1e4, false, false, false, true, false, true,
     false, Windows::kUpper, 4096},
    {"GemmaForCausalLM", "gemma", 16, 256, 8192, 1e4, true, true, false, false, false, true, false,
     Windows::kNone, 0},
    {"Gemma2ForCausalLM", "gemma2", 4, 256, 8192, 1e4, true, true, true, false, false, true, true,
     Windows::kAlternate, 4096},
    {"Gemma3ForCausalLM", "gemma3_text", 4, 256, 131072, 1e6, true, true, true, true, false, true,
     true, Windows::kPattern, 4096},
};

Result<kernels::Activation> ActivationFromName(const std::string& name) {
  if (name == "silu" || name == "swish") return kernels::Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    return kernels::Activation::kGeluTanh;
  }
  if (name == "gelu") return kernels::Activation::kGelu;
  return Unsupported(fmt::format(
      "activation '{}' is not known; known are silu, gelu_pytorch_tanh and gelu", name));
}

// One rope description. `json` holds rope_type and its numbers (v5: rope_theta too).
Result<RopeConfig> RopeFromJson(const Json& json, const std::string& where, double theta,
                                int64_t max_positions) {
  if (!json.is_object()) return BadInput(fmt::format("{} is not an object", where));
  JsonKeys keys(json, where + ".");
  RopeConfig rope;
  rope.theta = keys.Float("rope_theta", theta, 1e-3, 1e12);
  const std::string type = keys.String("rope_type", keys.String("type", "default"));
  if (type == "linear") {
    rope.type = RopeType::kLinear;
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
  } else if (type != "default") {
    return Unsupported(
        fmt::format("{}.rope_type '{}' is not supported; supported are default, linear and llama3",
                    where, type));
  }
  if (keys.Float("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    return Unsupported(
        fmt::format("{}.partial_rotary_factor other than 1 is not supported", where));
  }
  if (rope.type != RopeType::kDefault) {
    if (keys.Find("factor") == nullptr) {
      return BadInput(fmt::format("{}.factor is missing, but rope type {} needs it", where, type));
    }
    rope.factor = keys.Float("factor", 1.0, 1e-3, 1e6);
  }
  if (rope.type == RopeType::kLlama3) {
    rope.low_freq_factor = keys.Float("low_freq_factor", 1.0, 1e-3, 1e6);
    rope.high_freq_factor = keys.Float("high_freq_factor", 4.0, 1e-3, 1e6);
    rope.original_max_positions =
        keys.Int("original_max_position_embeddings", max_positions, 1, (int64_t{1} << 31) - 1);
  }
  EW_RETURN_IF_ERROR(keys.status());
  return rope;
}

// ropes[0]: full attention layers; ropes[1] (Gemma 3): sliding layers.
Result<std::vector<RopeConfig>> RopesFromJson(JsonKeys& keys, const ArchitectureRow& arch,
                                              int64_t max_positions) {
  const bool two = arch.windows == Windows::kPattern;
  std::vector<RopeConfig> ropes;
  if (const Json* v5 = keys.Find("rope_parameters"); v5 != nullptr) {
    if (!v5->is_object()) return keys.Wrong("rope_parameters", *v5, "an object");
    if (v5->contains("full_attention") || v5->contains("sliding_attention")) {
      for (const char* kind : {"full_attention", "sliding_attention"}) {
        const auto it = v5->find(kind);
        const double theta = it == v5->begin() || two ? arch.theta : 1e4;
        const Json empty = Json::object();
        const Json& described = it == v5->end() || it->is_null() ? empty : *it;
        EW_ASSIGN(RopeConfig rope, RopeFromJson(described, fmt::format("rope_parameters.{}", kind),
                                                theta, max_positions));
        ropes.push_back(std::move(rope));
      }
      if (!two) {
        return Unsupported("rope_parameters per layer type is only supported for Gemma 3");
      }
      return ropes;
    }
    EW_ASSIGN(RopeConfig rope, RopeFromJson(*v5, "rope_parameters", arch.theta, max_positions));
    ropes.push_back(std::move(rope));
  } else {
    const double theta = keys.Float("rope_theta", arch.theta, 1e-3, 1e12);
    const Json* scaling = keys.Find("rope_scaling");
    const Json empty = Json::object();
    EW_ASSIGN(RopeConfig rope, RopeFromJson(scaling == nullptr ? empty : *scaling, "rope_scaling",
                                            theta, max_positions));
    ropes.push_back(std::move(rope));
  }
  if (two) {
    ropes.push_back(RopeWithTheta(keys.Float("rope_local_base_freq", 1e4, 1e-3, 1e12)));
  }
  return ropes;
}

Result<std::vector<LayerConfig>> LayersFromJson(JsonKeys& keys, const ArchitectureRow& arch,
                                                int64_t count) {
  std::vector<LayerConfig> layers(static_cast<size_t>(count));
  int64_t window = arch.window;
  if (keys.HasKey("sliding_window")) {  // null means none, absent means the default
    window = keys.Int("sliding_window", 0, 0, (int64_t{1} << 31) - 1);
  }
  if (arch.windows == Windows::kUpper && !keys.Bool("use_sliding_window", false)) window = 0;
  if (arch.windows == Windows::kNone) window = 0;

  std::vector<bool> sliding(layers.size(), false);
  if (const Json* types = keys.Find("layer_types"); types != nullptr) {
    if (!types->is_array() || types->size() != layers.size()) {
      return keys.Wrong("layer_types", *types, fmt::format("a list of {} names", count));
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      const Json& type = (*types)[i];
      if (type != "full_attention" && type != "sliding_attention") {
        return keys.Wrong("layer_types", type, "'full_attention' or 'sliding_attention'");
      }
      sliding[i] = type == "sliding_attention";
    }
    if (arch.windows == Windows::kNone) sliding.assign(layers.size(), false);
  } else {
    const int64_t first = keys.Int("max_window_layers", 28, 0, 1 << 20);
    const int64_t pattern = keys.Int("sliding_window_pattern",
                                     keys.Int("_sliding_window_pattern", 6, 1, 4096), 1, 4096);
    for (int64_t i = 0; i < count; ++i) {
      bool is_sliding = false;
      switch (arch.windows) {
        case Windows::kNone:
          break;
        case Windows::kAll:
          is_sliding = true;
          break;
        case Windows::kUpper:
          is_sliding = i >= first;
          break;
        case Windows::kAlternate:
          is_sliding = i % 2 == 0;
          break;
        case Windows::kPattern:
          is_sliding = (i + 1) % pattern != 0;
          break;
      }
      sliding[static_cast<size_t>(i)] = is_sliding;
    }
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!sliding[i]) continue;
    layers[i].window = window;
    if (arch.windows == Windows::kPattern) layers[i].rope = 1;
  }
  return layers;
}

Status ReadTokenIds(JsonKeys& keys, ModelConfig& c) {
  constexpr int64_t kMaxId = (int64_t{1} << 31) - 1;
  if (const Json* bos = keys.Find("bos_token_id"); bos != nullptr && !bos->is_array()) {
    c.bos_id = keys.Int("bos_token_id", -1, -1, kMaxId);
  }
  const Json* eos = keys.Find("eos_token_id");
  if (eos == nullptr) return Status::Ok();
  if (!eos->is_array()) {
    const int64_t id = keys.Int("eos_token_id", -1, -1, kMaxId);
    if (id >= 0) c.eos_ids.push_back(id);
    return Status::Ok();
  }
  for (const Json& id : *eos) {
    const bool fits = id.is_number_integer() && id >= 0 && id <= kMaxId;
    if (!fits || eos->size() > 1024) {
      return keys.Wrong("eos_token_id", *eos, "a token id or a short list of them");
    }
    c.eos_ids.push_back(id.get<int64_t>());
  }
  return Status::Ok();
}

// Gemma multiplies embeddings by sqrt(hidden) in the type of the weights.
float EmbeddingScale(int64_t hidden, const std::string& dtype) {
  const float scale = static_cast<float>(std::sqrt(static_cast<double>(hidden)));
  if (dtype == "bfloat16") return BF16ToF32(F32ToBF16(scale));
  if (dtype == "float16") return F16ToF32(F32ToF16(scale));
  return scale;
}

Result<const ArchitectureRow*> FindArchitecture(const Json& json, JsonKeys& keys) {
  const Json* list = keys.Find("architectures");
  std::string name;
  if (list != nullptr && list->is_array() && !list->empty() && (*list)[0].is_string()) {
    name = (*list)[0].get<std::string>();
  }
  std::string type = keys.String("model_type", "");
  std::vector<std::string_view> known;
  for (const ArchitectureRow& row : kArchitectures) {
    if (row.name == name || (name.empty() && row.model_type == type)) return &row;
    known.push_back(row.name);
  }
  if (name.empty() && type.empty()) {
    return BadInput("neither architectures nor model_type says what model this is");
  }
  (void)json;
  return Unsupported(fmt::format("architecture '{}' is not supported; supported are {}",
                                 name.empty() ? type : name, fmt::join(known, ", ")));
}

}  // namespace

Result<ModelConfig> ConfigFromHf(const Json& json) {
  if (!json.is_object()) return BadInput("the config is not a JSON object");
  JsonKeys keys(json, "");
  EW_ASSIGN(const ArchitectureRow* arch, FindArchitecture(json, keys));
  if (keys.Find("quantization_config") != nullptr) {
    return Unsupported(
        "quantization_config: checkpoints quantised by other tools are not read; use the original "
        "weights or a GGUF file");
  }

  ModelConfig c;
  c.architecture = arch->name;
  c.model_type = arch->model_type;
  c.hidden = keys.Int("hidden_size", {}, 1, 1 << 20);
  c.ffn = keys.Int("intermediate_size", {}, 1, 1 << 22);
  const int64_t layers = keys.Int("num_hidden_layers", {}, 1, 4096);
  c.heads = keys.Int("num_attention_heads", {}, 1, 1 << 14);
  c.vocab = keys.Int("vocab_size", {}, 1, 1 << 24);
  c.max_positions =
      keys.Int("max_position_embeddings", arch->max_positions, 1, (int64_t{1} << 31) - 1);
  EW_RETURN_IF_ERROR(keys.status());
  c.kv_heads =
      keys.Int("num_key_value_heads", arch->kv_heads > 0 ? arch->kv_heads : c.heads, 1, 1 << 14);
  if (keys.Find("head_dim") == nullptr && arch->head_dim == 0 && c.hidden % c.heads != 0) {
    return BadInput(fmt::format(
        "hidden_size {} is not a multiple of num_attention_heads {} and there is no head_dim",
        c.hidden, c.heads));
  }
  c.head_dim =
      keys.Int("head_dim", arch->head_dim > 0 ? arch->head_dim : c.hidden / c.heads, 2, 1 << 14);
  if (c.heads % std::max<int64_t>(c.kv_heads, 1) != 0) {
    keys.Fail(
        BadInput(fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                             c.heads, c.kv_heads)));
  }
  if (c.head_dim % 2 != 0) {
    keys.Fail(
        BadInput(fmt::format("head_dim {} is odd: rotary embedding needs pairs", c.head_dim)));
  }
  c.norm_eps = keys.Float("rms_norm_eps", 1e-6, 1e-30, 0.5);
  c.tied = keys.Bool("tie_word_embeddings", arch->tied);
  EW_RETURN_IF_ERROR(keys.status());

  const std::string gelu = "gelu_pytorch_tanh";
  const std::string activation =
      arch->gemma ? keys.String("hidden_activation", gelu) : keys.String("hidden_act", "silu");
  EW_RETURN_IF_ERROR(keys.status());
  EW_ASSIGN(c.activation, ActivationFromName(activation));

  c.norm_plus_one = arch->gemma;
  c.qk_norm = arch->qk_norm;
  c.sandwich_norms = arch->sandwich;
  const bool attention_bias = arch->bias_keys && keys.Bool("attention_bias", false);
  c.qkv_bias = arch->qkv_bias || attention_bias;
  c.o_bias = attention_bias;
  c.mlp_bias = arch->bias_keys && !arch->gemma && keys.Bool("mlp_bias", false);

  double pre_scale = static_cast<double>(c.head_dim);
  if (arch->sandwich) pre_scale = keys.Float("query_pre_attn_scalar", 256, 1e-6, 1e9);
  c.attn_scale = static_cast<float>(1.0 / std::sqrt(pre_scale));
  if (arch->gemma) {
    c.embed_scale = EmbeddingScale(c.hidden, keys.String("dtype", keys.String("torch_dtype", "")));
  }
  if (arch->softcaps) {
    const bool gemma2 = arch->windows == Windows::kAlternate;
    auto cap = [&](const char* key, double fallback) {
      return static_cast<float>(keys.Float(key, keys.HasKey(key) ? 0.0 : fallback, 0.0, 1e6));
    };
    c.attn_softcap = cap("attn_logit_softcapping", gemma2 ? 50.0 : 0.0);
    c.logit_softcap = cap("final_logit_softcapping", gemma2 ? 30.0 : 0.0);
  }
  if (keys.Bool("use_bidirectional_attention", false)) {
    return Unsupported("use_bidirectional_attention: only causal models are supported");
  }
  if (keys.Float("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    return Unsupported("partial_rotary_factor other than 1 is not supported");
  }
  EW_RETURN_IF_ERROR(keys.status());

  EW_ASSIGN(c.ropes, RopesFromJson(keys, *arch, c.max_positions));
  EW_ASSIGN(c.layers, LayersFromJson(keys, *arch, layers));
  EW_RETURN_IF_ERROR(ReadTokenIds(keys, c));
  EW_RETURN_IF_ERROR(keys.status());
  EW_RETURN_IF_ERROR(ValidateConfig(c));
  return c;
}

}  // namespace edgewise::model
