// A tiny random model and random text for it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/rng.h"
#include "model/model.h"
#include "tune/batch_source.h"

namespace edgewise::tune::testing {

inline model::ModelConfig TinyConfig() {
  model::ModelConfig c;
  c.architecture = "LlamaForCausalLM";
  c.model_type = "llama";
  c.hidden = 32;
  c.ffn = 48;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.vocab = 60;
  c.max_positions = 64;
  c.attn_scale = 0.35355339f;
  c.tied = true;
  c.layers.resize(3);
  c.ropes.resize(1);
  return c;
}

inline std::unique_ptr<model::Model> TinyModel(DType dtype = DType::kF32) {
  auto model = model::Model::Random(TinyConfig(), 5, dtype);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return model.ok() ? std::move(*model) : nullptr;
}

// Batches of two documents of 24 tokens that follow a rule with noise, so that there is something
// to learn; the first third of each is not supervised.
class TinySource : public BatchSource {
 public:
  TinySource(uint64_t seed, int64_t batches) : seed_(seed), batches_(batches) {}
  int64_t batches_per_epoch() const override { return batches_; }
  int64_t max_tokens() const override { return 48; }
  Result<TokenBatch> Get(int64_t epoch, int64_t index) override {
    Rng rng(seed_, RngStream::kTest, static_cast<uint64_t>(epoch * 1000 + index));
    TokenBatch b;
    for (int32_t d = 0; d < 2; ++d) {
      auto id = static_cast<int32_t>(rng.NextBelow(60));
      for (int32_t t = 0; t < 24; ++t) {
        b.ids.push_back(id);
        b.positions.push_back(t);
        b.first_key.push_back(24 * d);
        id = rng.NextBelow(5) == 0 ? static_cast<int32_t>(rng.NextBelow(60)) : (id * 7 + 3) % 60;
        b.targets.push_back(t < 8 || t == 23 ? TokenBatch::kNoTarget : id);
      }
    }
    return b;
  }
  std::string fingerprint() const override { return "tiny-" + std::to_string(seed_); }

 private:
  uint64_t seed_;
  int64_t batches_;
};

}  // namespace edgewise::tune::testing
