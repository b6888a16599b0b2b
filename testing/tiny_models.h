// Small random models that between them use every flag of ModelConfig.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "model/model.h"
#include "tensor/token_batch.h"

namespace edgewise::testing {

struct TinyModel {
  std::string name;
  model::ModelConfig config;
};

inline model::ModelConfig TinyLlama() {
  model::ModelConfig c;
  c.architecture = "LlamaForCausalLM";
  c.model_type = "llama";
  c.hidden = 16;
  c.ffn = 24;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 4;
  c.vocab = 37;
  c.max_positions = 64;
  c.attn_scale = 0.5f;
  c.tied = true;
  c.layers.assign(3, model::LayerConfig{});
  c.ropes = {model::RopeConfig{}};
  return c;
}

inline std::vector<TinyModel> TinyModels() {
  std::vector<TinyModel> models;
  models.push_back({"llama", TinyLlama()});
  {
    model::ModelConfig c = TinyLlama();
    c.qkv_bias = c.o_bias = c.mlp_bias = true;
    c.tied = false;
    c.head_dim = 6;  // q_dim 24 is not the hidden size
    c.attn_scale = static_cast<float>(1.0 / std::sqrt(6.0));
    models.push_back({"biases", c});
  }
  {
    model::ModelConfig c = TinyLlama();
    for (model::LayerConfig& layer : c.layers) layer.window = 5;
    c.kv_heads = 4;
    c.tied = false;
    models.push_back({"windowed", c});
  }
  {
    model::ModelConfig c = TinyLlama();
    c.qk_norm = true;
    c.kv_heads = 1;
    models.push_back({"qknorm", c});
  }
  {
    model::ModelConfig c = TinyLlama();  // what Gemma 2 and 3 add
    c.norm_plus_one = c.sandwich_norms = c.qk_norm = true;
    c.activation = kernels::Activation::kGeluTanh;
    c.embed_scale = 4.0f;
    c.attn_softcap = 5.0f;
    c.logit_softcap = 6.0f;
    c.ropes.push_back(model::RopeWithTheta(100.0));
    c.ropes[0].type = model::RopeType::kLinear;
    c.ropes[0].factor = 4.0;
    c.layers[0] = {6, 1};
    c.layers[1] = {6, 1};
    models.push_back({"gemma", c});
  }
  return models;
}

// Trainable, with weights large enough that every part of the model matters.
inline std::unique_ptr<model::Model> MakeTinyModel(const model::ModelConfig& config,
                                                   uint64_t seed = 7) {
  auto model = model::Model::Random(config, seed);
  EXPECT_TRUE(model.ok()) << model.status().message();
  EXPECT_TRUE((*model)->MakeTrainable().ok());
  Rng rng(seed, RngStream::kTest);
  for (const model::WeightId& id : model::ListWeights(config)) {
    float* w = (*model)->MutableData(id);
    int64_t count = 1, in = 1;
    for (int64_t d : model::ShapeOf(config, id)) {
      count *= d;
      in = d;
    }
    const bool gain = id.is_norm() && !config.norm_plus_one;
    const double size = id.is_matrix() ? 0.7 / std::sqrt(static_cast<double>(in)) : 0.3;
    for (int64_t i = 0; i < count; ++i) {
      w[i] = static_cast<float>((gain ? 1.0 : 0.0) + size * rng.NextNormal());
    }
  }
  return std::move(*model);
}

// Documents of the given lengths, random ids, about two targets in three.
inline TokenBatch RandomDocuments(const std::vector<int64_t>& lengths, int64_t vocab,
                                  uint64_t seed = 11) {
  TokenBatch batch;
  Rng rng(seed, RngStream::kTest, 1);
  for (int64_t length : lengths) {
    const auto start = static_cast<int32_t>(batch.size());
    for (int32_t t = 0; t < length; ++t) {
      batch.ids.push_back(static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(vocab))));
      batch.positions.push_back(t);
      batch.first_key.push_back(start);
      batch.targets.push_back(TokenBatch::kNoTarget);
    }
    for (size_t t = static_cast<size_t>(start); t + 1 < batch.ids.size(); ++t) {
      if (rng.NextBelow(3) > 0) batch.targets[t] = batch.ids[t + 1];
    }
  }
  return batch;
}

}  // namespace edgewise::testing
