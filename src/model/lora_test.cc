#include "model/lora.h"

#include <gtest/gtest.h>

#include "model/parameters.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

LoraConfig Targets(std::vector<std::string> names) {
  LoraConfig lora;
  lora.targets = LoraConfig::Targets::kList;
  lora.target_modules = std::move(names);
  return lora;
}

TEST(LoraAdapter, StartsAsNothingAndRepeats) {
  const ModelConfig c = testing::TinyLlama();
  LoraConfig lora = Targets({"q_proj", "mlp.down_proj"});
  lora.r = 4;
  lora.lora_alpha = 8;
  auto a = LoraAdapter::Create(c, lora, 1);
  auto b = LoraAdapter::Create(c, lora, 1);
  auto other = LoraAdapter::Create(c, lora, 2);
  ASSERT_TRUE(a.ok() && b.ok() && other.ok());
  EXPECT_EQ(a->parameter_count(), 3 * 4 * (16 + 16 + 24 + 16));
  EXPECT_EQ(a->slot(1, LinearKind::kK), nullptr);
  const LoraSlot* q = a->slot(1, LinearKind::kQ);
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->scale, 2.0f);
  double largest = 0;
  for (int64_t i = 0; i < q->r * q->in; ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(q->a[i])));
  }
  EXPECT_LE(largest, 0.25);  // 1 / sqrt(16)
  EXPECT_GT(largest, 0.2);
  for (int64_t i = 0; i < q->out * q->r; ++i) EXPECT_EQ(q->b[i], 0);
  bool differs = false;
  for (int64_t i = 0; i < a->parameter_count(); ++i) {
    EXPECT_EQ(a->values()[i], b->values()[i]);
    differs = differs || a->values()[i] != other->values()[i];
  }
  EXPECT_TRUE(differs);
}

TEST(LoraAdapter, LayersAndPatterns) {
  const ModelConfig c = testing::TinyLlama();
  LoraConfig lora = Targets({"q_proj", "v_proj"});
  lora.layers_to_transform = LastLayers(c, 2);
  lora.rank_pattern = {{"layers.2.self_attn.q_proj", 2}};
  lora.alpha_pattern = {{"v_proj", 16.0}};
  lora.use_rslora = true;
  auto adapter = LoraAdapter::Create(c, lora, 1);
  ASSERT_TRUE(adapter.ok()) << adapter.status().message();
  EXPECT_EQ(adapter->slot(0, LinearKind::kQ), nullptr);
  EXPECT_EQ(adapter->slot(1, LinearKind::kQ)->r, 8);
  EXPECT_EQ(adapter->slot(2, LinearKind::kQ)->r, 2);
  EXPECT_FLOAT_EQ(adapter->slot(2, LinearKind::kQ)->scale, 8.0f / std::sqrt(2.0f));
  EXPECT_FLOAT_EQ(adapter->slot(2, LinearKind::kV)->scale, 16.0f / std::sqrt(8.0f));
  EXPECT_EQ(adapter->max_rank(), 8);

  const ParameterSet all = ParameterSet::ForLora(*adapter);
  ASSERT_EQ(all.params().size(), 8u);
  EXPECT_EQ(all.params()[0].name, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(all.gradients().first_layer(), 1);
  EXPECT_EQ(ParameterSet::ForLora(*adapter, {2, 3}).gradients().first_layer(), 2);
  EXPECT_EQ(ParameterSet::ForLora(*adapter, {0, 1}).gradients().first_layer(), 3);
}

TEST(LoraAdapter, ExplainsErrors) {
  const ModelConfig c = testing::TinyLlama();
  auto fails = [&](const LoraConfig& lora, const char* why) {
    const auto adapter = LoraAdapter::Create(c, lora, 1);
    ASSERT_FALSE(adapter.ok());
    EXPECT_NE(adapter.status().message().find(why), std::string::npos)
        << adapter.status().message();
  };
  fails(Targets({"query"}), "gate_proj");
  LoraConfig lora = Targets({"q_proj"});
  lora.r = 0;
  fails(lora, "rank 0");
  lora.r = 8;
  lora.lora_dropout = 1;
  fails(lora, "dropout");
  lora.lora_dropout = 0;
  lora.layers_to_transform = {3};
  fails(lora, "layer 3");
}

TEST(MergeLora, AddsTheProduct) {
  const ModelConfig c = testing::TinyLlama();
  auto model = testing::MakeTinyModel(c);
  auto adapter = LoraAdapter::Create(c, Targets({"up_proj"}), 1);
  ASSERT_TRUE(adapter.ok());
  const LoraSlot* s = adapter->slot(2, LinearKind::kUp);
  s->b[3 * s->r + 1] = 2.0f;
  const WeightId id{WeightRole::kLinear, 2, LinearKind::kUp};
  const std::vector<float> before(model->MutableData(id), model->MutableData(id) + 24 * 16);
  ASSERT_TRUE(MergeLora(*model, *adapter).ok());
  for (int64_t i = 0; i < 24 * 16; ++i) {
    const float added = i / 16 == 3 ? 2.0f * s->scale * s->a[16 + i % 16] : 0.0f;
    EXPECT_FLOAT_EQ(model->MutableData(id)[i], before[static_cast<size_t>(i)] + added);
  }
}

}  // namespace
}  // namespace edgewise::model
