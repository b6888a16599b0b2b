#include "formats/peft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "formats/safetensors_writer.h"
#include "formats/tensor_source.h"

namespace edgewise::formats {
namespace {

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

LoraConfig Parsed(const std::string& fields) {
  auto config = ParseLoraConfig("{\"peft_type\":\"LORA\"," + fields + "}");
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : LoraConfig();
}

std::string WhyRefused(const std::string& fields) {
  auto config =
      ParseLoraConfig("{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"]," + fields + "}");
  return config.ok() ? "accepted" : config.status().message();
}

TEST(LoraConfig, Defaults) {
  const LoraConfig config = Parsed("\"target_modules\":[\"q_proj\"]");
  EXPECT_EQ(config.r, 8);
  EXPECT_EQ(config.lora_alpha, 8);
  EXPECT_EQ(config.lora_dropout, 0);
  EXPECT_FALSE(config.use_rslora);
  EXPECT_FALSE(config.layers_to_transform.has_value());
}

TEST(LoraConfig, RefusesWhatChangesTheComputation) {
  EXPECT_HAS(WhyRefused("\"use_dora\":true"), "use_dora");
  EXPECT_HAS(WhyRefused("\"use_qalora\":true"), "use_qalora");
  EXPECT_HAS(WhyRefused("\"alora_invocation_tokens\":[1,2]"), "alora_invocation_tokens");
  EXPECT_HAS(WhyRefused("\"velora_config\":{\"a\":1}"), "velora_config");
  EXPECT_HAS(WhyRefused("\"lora_bias\":true"), "lora_bias");
  EXPECT_HAS(WhyRefused("\"fan_in_fan_out\":true"), "fan_in_fan_out");
  EXPECT_HAS(WhyRefused("\"bias\":\"all\""), "bias");
  EXPECT_HAS(WhyRefused("\"init_lora_weights\":\"pissa_niter_4\""), "pissa");
  EXPECT_HAS(WhyRefused("\"some_new_thing\":1"), "unknown key \"some_new_thing\"");
  EXPECT_HAS(WhyRefused("\"r\":0"), "\"r\"");
  EXPECT_HAS(WhyRefused("\"r\":8.5"), "\"r\"");
  EXPECT_HAS(WhyRefused("\"r\":1e300"), "\"r\"");
  EXPECT_HAS(WhyRefused("\"lora_dropout\":1.5"), "lora_dropout");
  EXPECT_HAS(WhyRefused("\"lora_alpha\":\"16\""), "lora_alpha");
  EXPECT_HAS(WhyRefused("\"rank_pattern\":{\"a\":-1}"), "rank_pattern");
  EXPECT_HAS(WhyRefused("\"rank_pattern\":[]"), "rank_pattern");
  EXPECT_HAS(WhyRefused("\"use_rslora\":1"), "use_rslora");
  EXPECT_HAS(WhyRefused("\"layers_to_transform\":[-1]"), "layers_to_transform");
  EXPECT_HAS(WhyRefused("\"r\":8,\"r\":4"), "duplicate");
  EXPECT_EQ(WhyRefused("\"some_new_thing\":null,\"another\":false,\"third\":{}"), "accepted");
  EXPECT_EQ(WhyRefused("\"init_lora_weights\":\"gaussian\",\"runtime_config\":{\"x\":1}"),
            "accepted");
  EXPECT_HAS(ParseLoraConfig("{\"peft_type\":\"IA3\"}").status().message(), "IA3");
  EXPECT_HAS(ParseLoraConfig("{\"peft_type\":\"LORA\"}").status().message(), "target_modules");
  EXPECT_HAS(ParseLoraConfig("[]").status().message(), "object");
}

TEST(LoraMatcher, MatchesAsPeftDoes) {
  const auto match = [](const std::string& fields, std::string_view module) {
    auto matcher = LoraMatcher::Create(Parsed(fields));
    EXPECT_TRUE(matcher.ok()) << matcher.status().message();
    return matcher->Match(module).has_value();
  };
  const std::string q3 = "model.layers.3.self_attn.q_proj";
  EXPECT_TRUE(match("\"target_modules\":[\"q_proj\"]", q3));
  EXPECT_TRUE(match("\"target_modules\":[\"self_attn.q_proj\"]", q3));
  EXPECT_FALSE(match("\"target_modules\":[\"proj\"]", q3));
  EXPECT_FALSE(match("\"target_modules\":[\"q_proj.x\"]", q3));
  EXPECT_TRUE(match("\"target_modules\":\".*\\\\.3\\\\..*q_proj\"", q3));
  EXPECT_FALSE(match("\"target_modules\":\".*q_pro\"", q3));  // the whole name must match
  EXPECT_TRUE(match("\"target_modules\":\"all-linear\"", q3));
  EXPECT_FALSE(match("\"target_modules\":\"all-linear\"", "lm_head"));
  EXPECT_FALSE(match("\"target_modules\":\"all-linear\",\"exclude_modules\":[\"q_proj\"]", q3));
  EXPECT_FALSE(match("\"target_modules\":\"all-linear\",\"exclude_modules\":\".*q.*\"", q3));
  const std::string q = "\"target_modules\":[\"q_proj\"],\"layers_to_transform\":";
  EXPECT_TRUE(match(q + "[1,3]", q3));
  EXPECT_TRUE(match(q + "3", q3));
  EXPECT_FALSE(match(q + "[1,2]", q3));
  EXPECT_TRUE(match(q + "[3],\"layers_pattern\":\"layers\"", q3));
  EXPECT_FALSE(match(q + "[3],\"layers_pattern\":[\"h\"]", q3));
}

TEST(LoraMatcher, RanksAndScales) {
  auto matcher = LoraMatcher::Create(
      Parsed("\"r\":4,\"lora_alpha\":8,\"use_rslora\":true,\"target_modules\":\"all-linear\","
             "\"rank_pattern\":{\"layers.1.mlp.down_proj\":2,\"down_proj\":16},"
             "\"alpha_pattern\":{\"q_proj\":24}"));
  ASSERT_TRUE(matcher.ok());
  EXPECT_EQ(matcher->Match("model.layers.1.mlp.down_proj")->r, 2);
  EXPECT_EQ(matcher->Match("model.layers.2.mlp.down_proj")->r, 16);
  EXPECT_EQ(matcher->Match("model.layers.11.mlp.down_proj")->r, 16);
  const auto q = *matcher->Match("model.layers.1.self_attn.q_proj");
  EXPECT_EQ(q.r, 4);
  EXPECT_EQ(q.alpha, 24);
  EXPECT_DOUBLE_EQ(q.scaling, 24 / std::sqrt(4.0));
}

TEST(LoraMatcher, HostileExpressions) {
  EXPECT_HAS(LoraMatcher::Create(Parsed("\"target_modules\":\"(q_proj\"")).status().message(),
             "wrong at character");
  EXPECT_FALSE(
      LoraMatcher::Create(Parsed("\"target_modules\":\"" + std::string(3000, '(') + "\"")).ok());
  EXPECT_FALSE(
      LoraMatcher::Create(Parsed("\"target_modules\":\"" + std::string(5000, 'a') + "\"")).ok());
  auto slow = LoraMatcher::Create(Parsed("\"target_modules\":\"(a+)+b\""));
  ASSERT_TRUE(slow.ok());
  EXPECT_FALSE(slow->Match(std::string(200, 'a')).has_value());  // gives up rather than hangs
}

class PeftFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/peft_test_" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string ReadWith(const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors,
                       const std::string& fields = "\"r\":2,\"target_modules\":[\"q_proj\"]") {
    SafetensorsWriter writer;
    const std::vector<float> zeros(1000);
    for (const auto& [name, shape] : tensors) {
      EXPECT_TRUE(writer.Add(name, MakeFloatTensor(shape, zeros.data())).ok());
    }
    EXPECT_TRUE(writer.Write(PosixEnv(), dir_ + "/adapter_model.safetensors").ok());
    EXPECT_TRUE(WriteFileAtomic(PosixEnv(), dir_ + "/adapter_config.json",
                                "{\"peft_type\":\"LORA\"," + fields + "}")
                    .ok());
    auto adapter = ReadPeftAdapter(dir_);
    return adapter.ok() ? "read" : adapter.status().message();
  }
  std::string dir_;
};

TEST_F(PeftFiles, RefusesBrokenPairs) {
  const std::string a = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  const std::string b = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
  EXPECT_EQ(ReadWith({{a, {2, 5}}, {b, {7, 2}}}), "read");
  EXPECT_HAS(ReadWith({{a, {2, 5}}}), "lora_B is missing");
  EXPECT_HAS(ReadWith({{b, {7, 2}}}), "lora_A is missing");
  EXPECT_HAS(ReadWith({{a, {3, 5}}, {b, {7, 3}}}), "rank 2");
  EXPECT_HAS(ReadWith({{a, {2, 5}}, {b, {7, 3}}}), "rank 2");
  EXPECT_HAS(ReadWith({{a, {10}}, {b, {7, 2}}}), "no matrix");
  EXPECT_HAS(ReadWith({{"x.lora_A.weight", {2, 5}}}), "does not begin with");
  EXPECT_HAS(ReadWith({{"base_model.model.q_proj.lora_magnitude_vector", {5}}}), "neither half");
  EXPECT_HAS(ReadWith({{"base_model.model.lm_head.weight", {5, 4}}}), "modules_to_save");
  EXPECT_EQ(ReadWith({{"base_model.model.lm_head.weight", {5, 4}}},
                     "\"target_modules\":[\"q_proj\"],\"modules_to_save\":[\"lm_head\"]"),
            "read");
  std::filesystem::remove(dir_ + "/adapter_model.safetensors");
  ASSERT_TRUE(WriteFileAtomic(PosixEnv(), dir_ + "/adapter_model.bin", "x").ok());
  EXPECT_HAS(ReadPeftAdapter(dir_).status().message(), "pickle");
}

TEST_F(PeftFiles, RoundTripWithEmbeddingAndSavedModules) {
  PeftAdapter adapter;
  adapter.config.r = 2;
  adapter.config.target_modules = {"embed_tokens", "q_proj"};
  adapter.config.modules_to_save = {"lm_head"};
  adapter.config.lora_dropout = 0.05;
  const float x[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  adapter.pairs["model.embed_tokens"] = {MakeFloatTensor({2, 9}, x), MakeFloatTensor({4, 2}, x),
                                         true};
  adapter.pairs["model.layers.0.self_attn.q_proj"] = {MakeFloatTensor({2, 4}, x),
                                                      MakeFloatTensor({4, 2}, x), false};
  adapter.saved["lm_head.weight"] = MakeFloatTensor({5, 4}, x);
  const Status status = WritePeftAdapter(PosixEnv(), dir_, adapter);
  ASSERT_TRUE(status.ok()) << status.message();
  auto back = ReadPeftAdapter(dir_);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->pairs.size(), 2u);
  EXPECT_TRUE(back->pairs["model.embed_tokens"].embedding);
  EXPECT_EQ(back->saved.size(), 1u);
  EXPECT_EQ(back->config.lora_dropout, 0.05);
  EXPECT_EQ(back->config.modules_to_save, adapter.config.modules_to_save);
}

}  // namespace
}  // namespace edgewise::formats
