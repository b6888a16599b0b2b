// Models whose linears are packed: the pass and the decoder run on them, with adapters.
#include <gtest/gtest.h>

#include "kernels/packed/packed_matrix.h"
#include "model/decoder.h"
#include "model/training_pass.h"
#include "testing/model_support.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

using testing::MakeContext;
using testing::MakeTinyModel;

struct PackedPair {
  std::unique_ptr<Model> packed;
  std::unique_ptr<Model> dense;  // the values that the packed codes stand for
};

PackedPair MakePair(const ModelConfig& config, int bits) {
  PackedPair pair;
  pair.dense = MakeTinyModel(config);
  auto storage = std::make_shared<std::vector<kernels::PackedMatrix>>();
  storage->reserve(config.layers.size() * kLinearKinds);
  const auto source = std::make_shared<std::unique_ptr<Model>>(MakeTinyModel(config));
  ModelWeights weights = (*source)->weights();
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LinearShape shape = ShapeOf(config, kind);
      kernels::PackedFormat format;
      format.rows = shape.out;
      format.cols = shape.in;
      format.bits = bits;
      format.act_group = 32;
      float* values = pair.dense->MutableData({WeightRole::kLinear, layer, kind});
      auto packed = kernels::Pack(format, values, shape.in);
      EXPECT_TRUE(packed.ok()) << packed.status().message();
      storage->push_back(std::move(*packed));
      storage->back().UnpackRows(0, shape.out, values, shape.in);
      weights.layers[static_cast<size_t>(layer)][kind].weight = storage->back().Ref();
    }
  }
  auto model = Model::FromWeights(config, std::move(weights), {storage, source});
  EXPECT_TRUE(model.ok()) << model.status().message();
  pair.packed = std::move(*model);
  return pair;
}

LoraAdapter MakeAdapter(const ModelConfig& config) {
  LoraConfig lora;
  lora.r = 3;
  lora.targets = LoraConfig::Targets::kAllLinear;
  auto adapter = LoraAdapter::Create(config, lora, 5);
  EXPECT_TRUE(adapter.ok());
  Rng rng(5, RngStream::kTest);
  for (float& v : adapter->values().span()) v = static_cast<float>(0.2 * rng.NextNormal());
  return std::move(*adapter);
}

struct Step {
  double loss = 0;
  std::vector<float> grads;
};

Step RunStep(const Model& model, LoraAdapter& adapter, int threads,
             const kernels::LinearBackwardOptions& backward,
             const std::vector<int64_t>& lengths = {20, 12},
             std::span<const plan::Recompute> recompute = {}, int64_t mlp_rows = 0) {
  const auto ctx = MakeContext(threads);
  const TokenBatch batch = testing::RandomDocuments(lengths, model.config().vocab);
  ParameterSet set = ParameterSet::ForLora(adapter);
  PassOptions options;
  options.lora = &adapter;
  options.gradients = &set.gradients();
  options.grad_scale = 0.1;
  options.backward = backward;
  options.recompute = recompute;
  options.mlp_rows = mlp_rows;
  TrainingPass pass(*ctx, model, batch.size());
  const auto result = pass.Run(batch, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  Step step;
  step.loss = result->loss_sum;
  step.grads.assign(set.grads().data(), set.grads().data() + set.count());
  return step;
}

TEST(PackedModel, TrainsAdaptersAsTheDenseValuesDo) {
  const ModelConfig config = testing::TinyLlama();
  const PackedPair pair = MakePair(config, 8);
  EXPECT_LT(pair.packed->weight_bytes(), pair.dense->weight_bytes());
  LoraAdapter adapter = MakeAdapter(config);
  const Step dense = RunStep(*pair.dense, adapter, 1, {});
  const Step exact = RunStep(*pair.packed, adapter, 1, {});
  // Activations are rounded to 8 bits, half a step of 1/127 of the largest of 32: about 2^-8 of
  // each, which 7 sums a layer pass on; the backward pass doubles the path.
  const double rounding =
      0x1.0p-8 * std::sqrt(7.0 * 3.0 * static_cast<double>(config.num_layers()));
  EXPECT_NEAR(exact.loss, dense.loss, rounding * dense.loss);
  EXPECT_LE(testing::RelativeL2(exact.grads.data(), dense.grads), 2 * rounding);

  for (bool stochastic : {false, true}) {
    const kernels::LinearBackwardOptions integer{kernels::BackwardMode::kInteger, stochastic, 3, 9};
    const Step rounded = RunStep(*pair.packed, adapter, 1, integer);
    EXPECT_EQ(rounded.loss, exact.loss);
    EXPECT_NE(rounded.grads, exact.grads);
    EXPECT_LE(testing::RelativeL2(rounded.grads.data(), exact.grads), 4 * rounding);
    EXPECT_EQ(RunStep(*pair.packed, adapter, 2, integer).grads, rounded.grads);
    kernels::LinearBackwardOptions other = integer;
    other.substream = 10;
    EXPECT_EQ(RunStep(*pair.packed, adapter, 1, other).grads == rounded.grads, !stochastic);
  }
}

// What is rounded at random is rounded by row, whatever piece the row comes in.
TEST(PackedModel, PiecesOfTheMlpChangeNoBit) {
  const ModelConfig config = testing::TinyLlama();
  const PackedPair pair = MakePair(config, 4);
  LoraAdapter adapter = MakeAdapter(config);
  const std::vector<int64_t> lengths(12, 50);
  for (const bool stochastic : {false, true}) {
    const kernels::LinearBackwardOptions integer{kernels::BackwardMode::kInteger, stochastic, 3, 9};
    const Step whole = RunStep(*pair.packed, adapter, 2, integer, lengths);
    for (const auto form : {plan::Recompute::kMlp, plan::Recompute::kLayer}) {
      const std::vector forms(config.layers.size(), form);
      for (const int64_t rows : {256, 512}) {
        const Step pieces = RunStep(*pair.packed, adapter, 2, integer, lengths, forms, rows);
        EXPECT_EQ(pieces.loss, whole.loss);
        EXPECT_EQ(pieces.grads, whole.grads);
      }
    }
  }
}

// Forward products in fp32: fp32 rounding is all that is left, a thousandth of what int8 costs.
TEST(PackedModel, ExactForwardIsThatOfTheDenseValues) {
  const ModelConfig config = testing::TinyLlama();
  const PackedPair pair = MakePair(config, 4);
  const auto ctx = MakeContext(2);
  const TokenBatch batch = testing::RandomDocuments({20, 12}, config.vocab);
  const auto run = [&](const Model& model, bool exact) {
    TrainingPass pass(*ctx, model, batch.size());
    std::vector<float> hidden(static_cast<size_t>(batch.size() * config.hidden));
    EXPECT_TRUE(pass.Embed(batch, hidden.data()).ok());
    EXPECT_TRUE(
        pass.Forward(batch, {0, config.num_layers()}, nullptr, hidden.data(), 0, exact).ok());
    return hidden;
  };
  const std::vector<float> dense = run(*pair.dense, false);
  EXPECT_EQ(run(*pair.dense, true), dense);
  const double exact = testing::RelativeL2(run(*pair.packed, true).data(), dense);
  const double integer = testing::RelativeL2(run(*pair.packed, false).data(), dense);
  EXPECT_LE(exact, 0x1.0p-18);
  EXPECT_GT(integer, 100 * exact);
}

TEST(PackedModel, DecodesAsItPrefills) {
  const ModelConfig config = testing::TinyLlama();
  const PackedPair pair = MakePair(config, 4);
  const auto ctx = MakeContext(1);
  const TokenBatch batch = testing::RandomDocuments({24}, config.vocab);
  std::vector<float> at_once;
  for (int64_t chunk : {24, 5, 1}) {
    auto decoder = Decoder::Create(*ctx, *pair.packed, {32, chunk});
    ASSERT_TRUE(decoder.ok());
    const auto logits = (*decoder)->Prefill(batch.ids);
    ASSERT_TRUE(logits.ok());
    if (at_once.empty()) at_once.assign(logits->begin(), logits->end());
    // Rounding of activations turns the last bit of an input into one code step now and then.
    EXPECT_LE(testing::RelativeL2(logits->data(), at_once), 0x1.0p-8);
  }
}

TEST(PackedModel, HasNoMasterWeights) {
  const PackedPair pair = MakePair(testing::TinyLlama(), 4);
  const Status status = pair.packed->MakeTrainable();
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("q_proj"), std::string::npos);
  LoraAdapter adapter = MakeAdapter(testing::TinyLlama());
  EXPECT_FALSE(MergeLora(*pair.packed, adapter).ok());
}

}  // namespace
}  // namespace edgewise::model
