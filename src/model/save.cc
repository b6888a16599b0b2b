#include "model/save.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "formats/hf_dir.h"
#include "io/json.h"
#include "kernels/weight_rows.h"
#include "model/weight_table.h"

namespace edgewise::model {
namespace {

std::string_view TorchName(DType dtype) {
  if (dtype == DType::kF16) return "float16";
  return dtype == DType::kBF16 ? "bfloat16" : "float32";
}

std::string_view ActivationName(kernels::Activation activation) {
  switch (activation) {
    case kernels::Activation::kSilu:
      return "silu";
    case kernels::Activation::kGeluTanh:
      return "gelu_pytorch_tanh";
    case kernels::Activation::kGelu:
      return "gelu";
  }
  return "silu";
}

bool IsGemma(const ModelConfig& c) { return c.architecture.rfind("Gemma", 0) == 0; }

OrderedJson RopeScaling(const RopeConfig& rope) {
  OrderedJson json;
  if (rope.type == RopeType::kDefault) return nullptr;
  json["rope_type"] = rope.type == RopeType::kLinear ? "linear" : "llama3";
  json["factor"] = rope.factor;
  if (rope.type == RopeType::kLlama3) {
    json["low_freq_factor"] = rope.low_freq_factor;
    json["high_freq_factor"] = rope.high_freq_factor;
    json["original_max_position_embeddings"] = rope.original_max_positions;
  }
  return json;
}

// Writes `rows` rows at a time, so that a large matrix is never copied whole.
Status Produce(const Model& model, const WeightId& id, DType dtype, const LoraSlot* slot,
               const formats::ByteSink& sink) {
  const ModelConfig& c = model.config();
  const std::vector<int64_t> shape = ShapeOf(c, id);
  const int64_t rows = id.is_matrix() ? shape[0] : 1;
  const int64_t cols = shape.back();
  const int64_t step = std::clamp<int64_t>((1 << 18) / cols, 1, rows);
  std::vector<float> values(static_cast<size_t>(step * cols));
  std::vector<std::byte> bytes(values.size() * DTypeBytes(dtype));
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t n = std::min(step, rows - row);
    ReadWeightRows(model, id, row, n, values.data());
    if (slot != nullptr) AddAdapter(*slot, row, n, cols, values.data());
    ConvertFromF32(dtype, values.data(), bytes.data(), n * cols);
    EW_RETURN_IF_ERROR(sink({bytes.data(), static_cast<size_t>(n * cols) * DTypeBytes(dtype)}));
  }
  return Status::Ok();
}

}  // namespace

void AddAdapter(const LoraSlot& slot, int64_t row, int64_t n, int64_t cols, float* values) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < slot.r; ++k) {
      const float factor = slot.scale * slot.b[(row + i) * slot.r + k];
      const float* a = slot.a + k * cols;
      for (int64_t j = 0; j < cols; ++j) values[i * cols + j] += factor * a[j];
    }
  }
}

std::string ConfigToHf(const ModelConfig& c, DType dtype) {
  OrderedJson json;
  json["architectures"] = {c.architecture};
  json["model_type"] = c.model_type;
  json["hidden_size"] = c.hidden;
  json["intermediate_size"] = c.ffn;
  json["num_hidden_layers"] = c.num_layers();
  json["num_attention_heads"] = c.heads;
  json["num_key_value_heads"] = c.kv_heads;
  json["head_dim"] = c.head_dim;
  json["vocab_size"] = c.vocab;
  json["max_position_embeddings"] = c.max_positions;
  json["rms_norm_eps"] = c.norm_eps;
  json[IsGemma(c) ? "hidden_activation" : "hidden_act"] = ActivationName(c.activation);
  json["tie_word_embeddings"] = c.tied;
  json["attention_bias"] = c.o_bias;
  if (c.model_type == "llama") json["mlp_bias"] = c.mlp_bias;
  json["rope_theta"] = c.ropes[0].theta;
  json["rope_scaling"] = RopeScaling(c.ropes[0]);
  if (c.ropes.size() > 1) json["rope_local_base_freq"] = c.ropes[1].theta;

  int64_t window = 0;
  OrderedJson types = OrderedJson::array();
  for (const LayerConfig& layer : c.layers) {
    window = std::max(window, layer.window);
    types.push_back(layer.window > 0 ? "sliding_attention" : "full_attention");
  }
  json["sliding_window"] = window > 0 ? OrderedJson(window) : OrderedJson(nullptr);
  if (c.model_type.rfind("qwen", 0) == 0) json["use_sliding_window"] = window > 0;
  if (window > 0) json["layer_types"] = std::move(types);
  if (c.sandwich_norms) {
    json["query_pre_attn_scalar"] = 1.0 / (static_cast<double>(c.attn_scale) * c.attn_scale);
    auto cap = [](float v) { return v > 0 ? OrderedJson(v) : OrderedJson(nullptr); };
    json["attn_logit_softcapping"] = cap(c.attn_softcap);
    json["final_logit_softcapping"] = cap(c.logit_softcap);
  }
  json["bos_token_id"] = c.bos_id >= 0 ? OrderedJson(c.bos_id) : OrderedJson(nullptr);
  if (c.eos_ids.size() == 1) {
    json["eos_token_id"] = c.eos_ids[0];
  } else {
    json["eos_token_id"] = c.eos_ids.empty() ? OrderedJson(nullptr) : OrderedJson(c.eos_ids);
  }
  json["torch_dtype"] = TorchName(dtype);
  return DumpJson(json, 2) + "\n";
}

Status CheckHfConfig(const ModelConfig& config) {
  for (const RopeConfig& rope : config.ropes) {
    if (!rope.divisors.empty()) {
      return Unsupported(
          "this model's rotary frequencies come as a table (rope_freqs of a GGUF file), for which "
          "config.json has no key: save it from its original directory");
    }
  }
  return Status::Ok();
}

void ReadWeightRows(const Model& model, const WeightId& id, int64_t first, int64_t n, float* out) {
  const ModelConfig& c = model.config();
  if (id.is_matrix()) {
    kernels::WeightRowsToF32(MatrixOf(model.weights(), id), first, n, out);
    model.DropCached(id);
    return;
  }
  // GGUF files hold Gemma's gains with the 1 added.
  const float less = IsGemma(c) && !c.norm_plus_one && id.is_norm() ? 1.0f : 0.0f;
  const float* v = VectorOf(model.weights(), id);
  std::transform(v, v + ShapeOf(c, id).back(), out, [less](float x) { return x - less; });
}

formats::TensorProducer WeightProducer(const Model& model, const WeightId& id, DType dtype,
                                       const LoraSlot* slot) {
  return [&model, id, dtype, slot](const formats::ByteSink& sink) {
    return Produce(model, id, dtype, slot, sink);
  };
}

Status SaveHfModel(Env& env, const Model& model, DType dtype, std::string config_json,
                   const std::map<std::string, std::string>& files, const std::string& dir) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    return InvalidArgument(fmt::format("weights cannot be saved as {}", DTypeName(dtype)));
  }
  EW_RETURN_IF_ERROR(CheckHfConfig(model.config()));
  formats::HfDirWriter writer(std::move(config_json));
  for (const WeightId& id : ListWeights(model.config())) {
    EW_RETURN_IF_ERROR(writer.Add(HfName(model.config(), id), dtype, ShapeOf(model.config(), id),
                                  WeightProducer(model, id, dtype)));
  }
  for (const auto& [name, contents] : files) EW_RETURN_IF_ERROR(writer.AddFile(name, contents));
  return writer.Write(env, dir);
}

}  // namespace edgewise::model
