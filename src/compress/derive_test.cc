#include "compress/derive.h"

#include <gtest/gtest.h>

#include <cmath>

namespace edgewise::compress {
namespace {

model::ModelConfig TinyConfig(int layers) {
  model::ModelConfig c;
  c.architecture = "LlamaForCausalLM";
  c.model_type = "llama";
  c.hidden = 64;
  c.ffn = 128;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.vocab = 100;
  c.max_positions = 64;
  c.layers.resize(static_cast<size_t>(layers));
  c.ropes.resize(1);
  return c;
}

// Losses fall by 4 per bit and rise with sparsity; layer l is l + 1 times as sensitive.
SensitivityTable MadeTable(const model::ModelConfig& config) {
  SensitivityTable t;
  for (int64_t l = 0; l < config.num_layers(); ++l) {
    const double scale = static_cast<double>(l + 1);
    LayerSensitivity layer;
    for (int bits : {2, 3, 4, 5, 6, 8}) {
      layer.quantized.push_back({{bits, 0}, scale * std::exp2(-2 * bits), 0, -1});
    }
    for (double s : {0.1, 0.3, 0.5}) layer.pruned.push_back({{16, s}, scale * s, 0, -1});
    for (model::LinearKind kind : model::kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config, kind);
      LinearSensitivity linear{std::string(model::LinearName(kind)), shape.out, shape.in, {}};
      for (int bits : {2, 3, 4, 5, 6, 8}) {
        for (double s : {0.0, 0.5}) {
          const double loss = scale * (std::exp2(-2 * bits) + 0.02 * s);
          linear.measures.push_back({{bits, s}, loss, 0, loss});
        }
      }
      layer.linears.push_back(std::move(linear));
    }
    t.layers.push_back(std::move(layer));
  }
  return t;
}

int64_t Cost(int64_t rows, int64_t cols, const Option& o) {
  const double bits = o.sparsity > 0 ? 1 + o.bits * (1 - o.sparsity) : o.bits;
  return std::llround(static_cast<double>(rows * cols) * bits / 8);
}

TEST(DerivePolicy, EveryKindIsAFileThatReadsBack) {
  const auto config = TinyConfig(6);
  const auto table = MadeTable(config);
  for (const char* name : {"paper", "paper-literal", "uniform", "random", "budget"}) {
    SCOPED_TRACE(name);
    PolicyRequest request;
    request.kind = *ParsePolicyKind(name);
    request.bits = 4;
    request.sparsity = 0.5;
    const auto derived = DerivePolicy(table, config, request, Cost);
    ASSERT_TRUE(derived.ok()) << derived.status().message();
    const auto json = ParseJson(DumpJson(PolicyToJson(derived->policy), 1));
    const auto back = PolicyFromJson(*json, config);
    ASSERT_TRUE(back.ok()) << back.status().message();
    EXPECT_EQ(back->layers, derived->policy.layers);
    EXPECT_LE(derived->cost, derived->budget);
  }
}

TEST(DerivePolicy, BudgetPredictsNoMoreLossThanUniformAtTheSameBytes) {
  const auto config = TinyConfig(6);
  const auto table = MadeTable(config);
  for (int bits : {3, 4, 5}) {
    PolicyRequest request;
    request.bits = bits;
    const auto budget = DerivePolicy(table, config, request, Cost);
    ASSERT_TRUE(budget.ok());
    double uniform = 0;
    for (const auto& layer : table.layers) {
      for (const auto& linear : layer.linears) {
        for (const auto& m : linear.measures) {
          if (m.option == Option{bits, 0}) uniform += m.loss;
        }
      }
    }
    EXPECT_TRUE(budget->exact);
    EXPECT_LT(budget->predicted_loss, uniform);
  }
}

TEST(DerivePolicy, RefusesWhatDoesNotFit) {
  const auto table = MadeTable(TinyConfig(6));
  PolicyRequest request;
  EXPECT_FALSE(DerivePolicy(table, TinyConfig(5), request, Cost).ok());
  request.budget = 10;
  EXPECT_EQ(DerivePolicy(table, TinyConfig(6), request, Cost).status().code(),
            StatusCode::kOutOfMemory);
  request.kind = PolicyKind::kPaper;
  request.bits = 7;
  EXPECT_EQ(DerivePolicy(table, TinyConfig(6), request, Cost).status().code(),
            StatusCode::kNotFound);
}

TEST(PolicyFile, RefusesNonsense) {
  const auto config = TinyConfig(1);
  CompressionPolicy policy;
  policy.layers.emplace_back().fill({4, 0.5});
  const OrderedJson good = PolicyToJson(policy);
  const auto refuse = [&](auto edit) {
    OrderedJson bad = good;
    edit(bad);
    const auto json = ParseJson(DumpJson(bad));
    EXPECT_FALSE(PolicyFromJson(*json, config).ok()) << DumpJson(bad);
  };
  refuse([](OrderedJson& j) { j["layers"][0]["q_proj"]["bits"] = 7; });
  refuse([](OrderedJson& j) { j["layers"][0]["q_proj"]["sparsity"] = 0.99; });
  refuse([](OrderedJson& j) { j["layers"][0].erase("o_proj"); });
  refuse([](OrderedJson& j) { j["layers"] = OrderedJson::array(); });
  refuse([](OrderedJson& j) { j["group"] = 48; });
  refuse([](OrderedJson& j) { j["pattern"] = "3:4:5"; });
  refuse([](OrderedJson& j) { j.erase("schema"); });
}

TEST(SensitivityTable, ReadsBack) {
  const auto table = MadeTable(TinyConfig(3));
  const auto json = ParseJson(DumpJson(TableToJson(table)));
  const auto back = TableFromJson(*json);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(DumpJson(TableToJson(*back)), DumpJson(TableToJson(table)));
}

}  // namespace
}  // namespace edgewise::compress
