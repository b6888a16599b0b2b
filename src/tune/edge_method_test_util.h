// The fixture of the tests of EdgeMethod: a random model of six layers, documents that can be
// learned, and plain training on them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "tune/edge_method.h"
#include "tune/optimizer.h"

namespace edgewise::tune {

inline model::ModelConfig TinyConfig() {
  model::ModelConfig c;
  c.architecture = "LlamaForCausalLM";
  c.model_type = "llama";
  c.hidden = 32;
  c.ffn = 48;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.vocab = 61;
  c.max_positions = 64;
  c.norm_eps = 1e-5;
  c.attn_scale = static_cast<float>(1 / std::sqrt(8.0));
  c.layers.resize(6);
  c.ropes.resize(1);
  return c;
}

inline std::vector<std::vector<int32_t>> RandomDocuments(int count) {
  Rng rng(3, RngStream::kTest);
  std::vector<std::vector<int32_t>> docs;
  for (int d = 0; d < count; ++d) {
    auto& ids = docs.emplace_back(4 + rng.NextBelow(20));
    // A pattern that can be learned: every token follows from the one before.
    ids[0] = static_cast<int32_t>(rng.NextBelow(61));
    for (size_t i = 1; i < ids.size(); ++i) ids[i] = (ids[i - 1] * 7 + 3) % 61;
  }
  return docs;
}

inline TokenBatch BatchOf(const std::vector<std::vector<int32_t>>& docs,
                          std::vector<size_t> which) {
  TokenBatch b;
  for (size_t d : which) {
    const auto begin = static_cast<int32_t>(b.size());
    for (size_t i = 0; i < docs[d].size(); ++i) {
      b.ids.push_back(docs[d][i]);
      b.positions.push_back(static_cast<int32_t>(i));
      b.first_key.push_back(begin);
      b.targets.push_back(i + 1 < docs[d].size() ? docs[d][i + 1] : TokenBatch::kNoTarget);
    }
  }
  return b;
}

class EdgeMethodTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ctx_ = std::move(*ExecContext::Create({.threads = 2}));
    model_ = std::move(*model::Model::Random(TinyConfig(), 1));
    dir_ = ::testing::TempDir() + "edge-" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  EdgeOptions Options(TrunkMode mode, const std::string& cache) {
    EdgeOptions o;
    o.exits.exits = 3;
    o.trunk.mode = mode;
    o.trunk.codec = HiddenCodec::kF32;
    if (!cache.empty()) o.trunk.cache_path = dir_ + "/" + cache;
    o.lora.r = 4;
    o.lora.lora_alpha = 8;
    o.lora.targets = model::LoraConfig::Targets::kAllLinear;
    o.total_steps = 60;
    return o;
  }
  std::unique_ptr<EdgeMethod> Make(const EdgeOptions& o) {
    auto m = EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr);
    EXPECT_TRUE(m.ok()) << m.status().message();
    return std::move(*m);
  }
  // Runs steps [from, to) of plain AdamW; returns the training losses.
  std::vector<double> Train(EdgeMethod& m, AdamW& adam, int64_t from, int64_t to) {
    std::vector<double> losses;
    for (int64_t s = from; s < to; ++s) {
      std::vector<int32_t> active;
      EXPECT_TRUE(m.BeginStep(s, &active).ok());
      const auto d = static_cast<size_t>(s) % docs_.size();
      const TokenBatch batch = BatchOf(docs_, {d, (d + 5) % docs_.size()});
      int64_t n = 0;
      for (int32_t t : batch.targets) n += t >= 0;
      const auto loss = m.Micro(batch, {s, 0, 7, 1.0 / static_cast<double>(n)});
      EXPECT_TRUE(loss.ok()) << loss.status().message();
      losses.push_back(loss->mean());
      adam.Step(*ctx_, active, 0.02, adam.ClipCoefficient(adam.GradNorm(*ctx_, active)));
      EXPECT_TRUE(m.EndStep(s, *loss, true).ok());
    }
    return losses;
  }
  double Loss(EdgeMethod& m) {
    LossSum sum;
    for (size_t d = 0; d < docs_.size(); ++d) {
      const auto one = m.Evaluate(BatchOf(docs_, {d}));
      EXPECT_TRUE(one.ok()) << one.status().message();
      sum.loss_sum += one->loss_sum;
      sum.tokens += one->tokens;
    }
    return sum.mean();
  }

  std::unique_ptr<ExecContext> ctx_;
  std::unique_ptr<model::Model> model_;
  std::vector<std::vector<int32_t>> docs_ = RandomDocuments(12);
  std::string dir_;
};

}  // namespace edgewise::tune
