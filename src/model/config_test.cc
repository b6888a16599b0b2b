#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/json.h"
#include "model/rope.h"

namespace edgewise::model {
namespace {

Json Base() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128, "rope_theta": 10000.0})");
}

ModelConfig Parse(const Json& json) {
  auto config = ConfigFromHf(json);
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : ModelConfig{};
}

void ExpectError(const Json& json, const std::string& part) {
  const auto config = ConfigFromHf(json);
  ASSERT_FALSE(config.ok()) << json.dump();
  EXPECT_NE(config.status().message().find(part), std::string::npos)
      << config.status().message() << " does not speak of " << part;
}

TEST(ConfigFromHf, Defaults) {
  Json json = Base();
  json.erase("num_key_value_heads");
  json.erase("rope_theta");
  json.erase("max_position_embeddings");
  const ModelConfig c = Parse(json);
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.max_positions, 2048);
  EXPECT_EQ(c.ropes[0].theta, 10000.0);
  EXPECT_FALSE(c.tied);
  EXPECT_FLOAT_EQ(c.attn_scale, 0.25f);
  EXPECT_TRUE(c.eos_ids.empty());
}

TEST(ConfigFromHf, TokenIds) {
  Json json = Base();
  json["bos_token_id"] = 1;
  json["eos_token_id"] = Json::array({2, 7});
  EXPECT_EQ(Parse(json).bos_id, 1);
  EXPECT_EQ(Parse(json).eos_ids, (std::vector<int64_t>{2, 7}));
  json["eos_token_id"] = nullptr;
  EXPECT_TRUE(Parse(json).eos_ids.empty());
  json["eos_token_id"] = Json::array({-3});
  ExpectError(json, "eos_token_id");
}

TEST(ConfigFromHf, WindowsByArchitecture) {
  Json json = Base();
  json["sliding_window"] = 32;
  for (const LayerConfig& l : Parse(json).layers) EXPECT_EQ(l.window, 0);  // Llama has none

  json["architectures"] = {"MistralForCausalLM"};
  for (const LayerConfig& l : Parse(json).layers) EXPECT_EQ(l.window, 32);
  json["sliding_window"] = nullptr;
  for (const LayerConfig& l : Parse(json).layers) EXPECT_EQ(l.window, 0);

  json["architectures"] = {"Qwen2ForCausalLM"};
  json["sliding_window"] = 32;
  json["max_window_layers"] = 3;
  for (const LayerConfig& l : Parse(json).layers) EXPECT_EQ(l.window, 0);
  json["use_sliding_window"] = true;
  const ModelConfig qwen = Parse(json);
  EXPECT_TRUE(qwen.qkv_bias);
  EXPECT_FALSE(qwen.o_bias);
  EXPECT_EQ(qwen.layers[2].window, 0);
  EXPECT_EQ(qwen.layers[3].window, 32);
  json["layer_types"] = {"sliding_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_EQ(Parse(json).layers[0].window, 32);
  EXPECT_EQ(Parse(json).layers[3].window, 0);
}

TEST(ConfigFromHf, Gemma) {
  Json json = Base();
  json["architectures"] = {"Gemma2ForCausalLM"};
  json["torch_dtype"] = "bfloat16";
  json["hidden_size"] = 60;
  json["head_dim"] = 16;
  json["sliding_window"] = 8;
  const ModelConfig c = Parse(json);
  EXPECT_TRUE(c.tied && c.norm_plus_one && c.sandwich_norms);
  EXPECT_FALSE(c.qk_norm);
  EXPECT_EQ(c.activation, kernels::Activation::kGeluTanh);
  EXPECT_EQ(c.embed_scale, 7.75f);  // sqrt(60) = 7.7459... in bfloat16
  EXPECT_EQ(c.attn_softcap, 50.0f);
  EXPECT_EQ(c.logit_softcap, 30.0f);
  EXPECT_FLOAT_EQ(c.attn_scale, 1.0f / 16.0f);
  EXPECT_EQ(c.layers[0].window, 8);
  EXPECT_EQ(c.layers[1].window, 0);
}

TEST(ConfigFromHf, HostileValuesAreNamed) {
  const std::pair<const char*, Json> bad[] = {
      {"hidden_size", 0},
      {"hidden_size", -64},
      {"hidden_size", 1e3},
      {"hidden_size", "64"},
      {"hidden_size", std::uint64_t{1} << 63},
      {"hidden_size", int64_t{1} << 40},
      {"intermediate_size", nullptr},
      {"intermediate_size", int64_t{1} << 40},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1000000000},
      {"num_attention_heads", 0},
      {"num_attention_heads", 5},
      {"num_key_value_heads", 0},
      {"num_key_value_heads", 3},
      {"head_dim", 15},
      {"head_dim", 0},
      {"vocab_size", 0},
      {"vocab_size", int64_t{1} << 33},
      {"rms_norm_eps", 0},
      {"rms_norm_eps", -1.0},
      {"rms_norm_eps", "small"},
      {"max_position_embeddings", 0},
      {"rope_theta", 0},
      {"rope_theta", "big"},
      {"rope_scaling", "linear"},
      {"rope_scaling", {{"type", "linear"}}},
      {"rope_scaling", {{"type", "linear"}, {"factor", 0}}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}},
      {"rope_parameters", 3},
      {"tie_word_embeddings", 1},
      {"hidden_act", "tanh"},
      {"attention_bias", "yes"},
      {"eos_token_id", "</s>"},
      {"quantization_config", {{"bits", 4}}},
      {"partial_rotary_factor", 0.5},
      {"layer_types", {"full_attention"}},
      {"layer_types", {"full_attention", "full_attention", "full_attention", "chunked"}},
  };
  for (const auto& [key, value] : bad) {
    Json json = Base();
    json[key] = value;
    const auto config = ConfigFromHf(json);
    EXPECT_FALSE(config.ok()) << key << " = " << value.dump();
    std::string name = key;
    if (name == "hidden_act") name = "activation";
    if (!config.ok()) {
      EXPECT_NE(config.status().message().find(name), std::string::npos)
          << key << " = " << value.dump() << ": " << config.status().message();
    }
  }
  ExpectError(Json::array(), "object");
  ExpectError(Json::object(), "model_type");
  Json json = Base();
  json["architectures"] = {"GPT2LMHeadModel"};
  ExpectError(json, "LlamaForCausalLM");
  json = Base();
  json["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 2.0}};
  ExpectError(json, "yarn");
}

TEST(NamedShape, Sizes) {
  // Parameters as the models' cards give them.
  EXPECT_EQ(NamedShape("smollm2-135m")->parameter_count(), 134515008);
  EXPECT_EQ(NamedShape("qwen2.5-0.5b")->parameter_count(), 494032768);
  EXPECT_EQ(NamedShape("tinyllama-1.1b")->parameter_count(), 1100048384);
  EXPECT_EQ(NamedShape("llama-7b")->parameter_count(), 6738415616);
  const auto unknown = NamedShape("gpt");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("tinyllama-1.1b"), std::string::npos);
}

TEST(Rope, Llama3KeepsShortAndStretchesLongWavelengths) {
  RopeConfig rope = RopeWithTheta(500000.0);
  const std::vector<double> plain = RopeFrequencies(rope, 128);
  rope.type = RopeType::kLlama3;
  rope.factor = 8;
  rope.original_max_positions = 8192;
  const std::vector<double> scaled = RopeFrequencies(rope, 128);
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_DOUBLE_EQ(scaled.back(), plain.back() / 8);
  for (size_t i = 1; i < scaled.size(); ++i) EXPECT_LT(scaled[i], scaled[i - 1]);
}

TEST(Rope, DivisorsDivide) {
  RopeConfig rope;
  rope.divisors = {1.0f, 4.0f};
  EXPECT_DOUBLE_EQ(RopeFrequencies(rope, 4)[1], 0.01 / 4);
}

}  // namespace
}  // namespace edgewise::model
