#include "model/training_pass.h"

#include <gtest/gtest.h>

#include "testing/model_support.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

using testing::MakeContext;
using testing::MakeTinyModel;
using testing::RandomDocuments;
using testing::TinyModel;

constexpr auto kNone = plan::Recompute::kNone, kMlp = plan::Recompute::kMlp,
               kLayer = plan::Recompute::kLayer;
using Forms = std::vector<plan::Recompute>;  // of the layers

LoraAdapter MakeAdapter(const ModelConfig& config) {
  LoraConfig lora;
  lora.r = 3;
  lora.targets = LoraConfig::Targets::kAllLinear;
  auto adapter = LoraAdapter::Create(config, lora, 5);
  EXPECT_TRUE(adapter.ok()) << adapter.status().message();
  Rng rng(5, RngStream::kTest);
  for (float& v : adapter->values().span()) v = static_cast<float>(0.3 * rng.NextNormal());
  return std::move(*adapter);
}

class Pass : public ::testing::TestWithParam<TinyModel> {
 protected:
  struct Step {
    double loss = 0;
    std::vector<float> grads, token_loss;
  };

  const ModelConfig& c() const { return GetParam().config; }

  Step RunStep(int threads, const TokenBatch& batch, PassOptions options) {
    const auto ctx = MakeContext(threads);
    ParameterSet set = ParameterSet::ForLora(adapter_);
    Step step;
    step.token_loss.resize(batch.ids.size());
    options.lora = &adapter_;
    options.gradients = &set.gradients();
    options.grad_scale = 0.1;
    options.token_loss = step.token_loss.data();
    TrainingPass pass(*ctx, *model_, batch.size());
    const auto result = pass.Run(batch, options);
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (result.ok()) step.loss = result->loss_sum;
    const PassMemory planned = pass.MemoryNeeded(options), taken = pass.memory();
    EXPECT_EQ(planned.activations, taken.activations);
    EXPECT_EQ(planned.scratch, taken.scratch);
    step.grads.assign(set.grads().data(), set.grads().data() + set.count());
    return step;
  }

  std::unique_ptr<Model> model_ = MakeTinyModel(GetParam().config);
  LoraAdapter adapter_ = MakeAdapter(GetParam().config);
};

TEST_P(Pass, AGroupOfBatchesGivesTheBitsOfOneAfterTheOther) {
  const TokenBatch batches[] = {RandomDocuments({30, 11, 23}, c().vocab),
                                RandomDocuments({17}, c().vocab),
                                RandomDocuments({5, 40}, c().vocab)};
  const auto ctx = MakeContext(2);
  for (const Forms& recompute :
       {Forms{}, Forms{kLayer, kLayer, kLayer}, Forms{kNone, kLayer, kMlp}}) {
    ParameterSet set = ParameterSet::ForLora(adapter_);
    PassOptions options;
    options.lora = &adapter_;
    options.gradients = &set.gradients();
    options.grad_scale = 0.1;
    options.dropout = 0.3f;
    options.recompute = recompute;
    TrainingPass rows(*ctx, *model_, 64), group(*ctx, *model_, 64);
    std::vector<double> losses;
    for (uint64_t i = 0; i < 3; ++i) {
      options.dropout_key = i;
      const auto result = rows.Run(batches[i], options);
      ASSERT_TRUE(result.ok()) << result.status().message();
      losses.push_back(result->loss_sum);
    }
    const std::vector<float> want(set.grads().data(), set.grads().data() + set.count());
    set.ZeroGrads();
    std::vector<TrainingPass::GroupRow> members;
    for (uint64_t i = 0; i < 3; ++i) members.push_back({&batches[i], nullptr, i, 0});
    const auto results = group.RunGroup(members, options);
    ASSERT_TRUE(results.ok()) << results.status().message();
    ASSERT_EQ(results->size(), 3u);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ((*results)[i].loss_sum, losses[i]);
    EXPECT_EQ(want, std::vector<float>(set.grads().data(), set.grads().data() + set.count()));
    EXPECT_EQ(group.memory().activations, 3 * group.MemoryNeeded(options).activations);
    EXPECT_EQ(group.memory().scratch, rows.memory().scratch);
  }
  EXPECT_FALSE(TrainingPass(*ctx, *model_, 64).RunGroup({}, {}).ok());
}

TEST_P(Pass, RecomputationAndThreadsChangeNoBit) {
  const TokenBatch batch = RandomDocuments({30, 11, 23}, c().vocab);
  PassOptions options;
  options.dropout = 0.3f;
  const Step plain = RunStep(1, batch, options);
  const Step threads = RunStep(2, batch, options);
  EXPECT_EQ(plain.loss, threads.loss);
  EXPECT_EQ(plain.grads, threads.grads);
  for (const Forms& recompute : {Forms{kLayer, kLayer, kLayer}, Forms{kNone, kLayer, kNone},
                                 Forms{kMlp, kMlp, kMlp}, Forms{kMlp, kNone, kLayer}}) {
    options.recompute = recompute;
    const Step again = RunStep(2, batch, options);
    EXPECT_EQ(plain.loss, again.loss);
    EXPECT_EQ(plain.grads, again.grads);
  }
}

// 600 tokens: three pieces of 256, two of 512, one.
TEST_P(Pass, PiecesOfTheMlpChangeNoBit) {
  const TokenBatch batch = RandomDocuments(std::vector<int64_t>(12, 50), c().vocab);
  PassOptions options;
  options.dropout = 0.3f;
  const Step plain = RunStep(2, batch, options);
  const auto ctx = MakeContext(2);
  for (const Forms& recompute : {Forms{kLayer, kLayer, kLayer}, Forms{kMlp, kLayer, kNone}}) {
    for (const int64_t rows : {0, 256, 512}) {
      options.recompute = recompute;
      options.mlp_rows = rows;
      const Step again = RunStep(2, batch, options);
      EXPECT_EQ(plain.loss, again.loss);
      EXPECT_EQ(plain.grads, again.grads);
      PassOptions forward;
      forward.mlp_rows = rows;
      forward.lora = &adapter_;
      forward.dropout = options.dropout;
      TrainingPass pass(*ctx, *model_, batch.size());
      EXPECT_EQ(pass.Run(batch, forward)->loss_sum, plain.loss);
    }
  }
  options.mlp_rows = 100;
  EXPECT_FALSE(TrainingPass(*ctx, *model_, 600).Run(batch, options).ok());
}

TEST_P(Pass, PiecesOfTheMlpChangeNoBitOfFullGradients) {
  const TokenBatch batch = RandomDocuments(std::vector<int64_t>(12, 50), c().vocab);
  const auto ctx = MakeContext(2);
  ASSERT_TRUE(model_->MakeTrainable().ok());
  auto set = ParameterSet::ForModel(*model_);
  ASSERT_TRUE(set.ok()) << set.status().message();
  std::vector<float> want;
  for (const Forms& recompute : {Forms{}, Forms{kLayer, kMlp, kLayer}}) {
    PassOptions options;
    options.gradients = &set->gradients();
    options.grad_scale = 0.1;
    options.recompute = recompute;
    options.mlp_rows = 256;
    TrainingPass pass(*ctx, *model_, batch.size());
    set->ZeroGrads();
    ASSERT_TRUE(pass.Run(batch, options).ok());
    const std::vector<float> got(set->grads().data(), set->grads().data() + set->count());
    if (want.empty()) want = got;
    EXPECT_EQ(want, got);
  }
}

TEST_P(Pass, PackedDocumentsDoNotSeeEachOther) {
  const std::vector<int64_t> lengths = {9, 1, 14, 6};
  const TokenBatch packed = RandomDocuments(lengths, c().vocab);
  const Step together = RunStep(2, packed, {});
  double loss = 0;
  std::vector<float> grads(together.grads.size()), token_loss;
  size_t at = 0;
  for (int64_t length : lengths) {
    TokenBatch one;
    for (int64_t t = 0; t < length; ++t, ++at) {
      one.ids.push_back(packed.ids[at]);
      one.positions.push_back(packed.positions[at]);
      one.first_key.push_back(0);
      one.targets.push_back(packed.targets[at]);
    }
    const Step alone = RunStep(2, one, {});
    loss += alone.loss;
    for (size_t i = 0; i < grads.size(); ++i) grads[i] += alone.grads[i];
    token_loss.insert(token_loss.end(), alone.token_loss.begin(), alone.token_loss.end());
  }
  const double tolerance = testing::Fp32Tolerance(c(), c().num_layers(), 1.0);
  EXPECT_NEAR(together.loss, loss, tolerance * loss);
  EXPECT_LE(testing::MaxDifference(together.token_loss.data(), token_loss),
            tolerance * testing::LargestOf(token_loss));
  EXPECT_LE(testing::RelativeL2(together.grads.data(), grads), 3 * tolerance);
}

TEST_P(Pass, StartsFromAHiddenState) {
  const TokenBatch batch = RandomDocuments({12, 9}, c().vocab);
  const auto ctx = MakeContext();
  TrainingPass pass(*ctx, *model_, 64);
  std::vector<float> hidden(static_cast<size_t>(batch.size() * c().hidden)), states;
  PassOptions options;
  options.lora = &adapter_;
  options.observe = [&](int64_t done, const float* h) {
    if (done == 2) states.assign(h, h + hidden.size());
  };
  const auto whole = pass.Run(batch, options);
  ASSERT_TRUE(whole.ok());
  ASSERT_TRUE(pass.Embed(batch, hidden.data()).ok());
  ASSERT_TRUE(pass.Forward(batch, {0, 2}, &adapter_, hidden.data()).ok());
  EXPECT_EQ(hidden, states);
  options.begin = 2;
  options.start_hidden = hidden.data();
  const auto rest = pass.Run(batch, options);
  ASSERT_TRUE(rest.ok());
  EXPECT_EQ(rest->loss_sum, whole->loss_sum);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Pass, ::testing::ValuesIn(testing::TinyModels()),
                         [](const auto& i) { return i.param.name; });

TEST(PassMemory, ShrinksWithRecomputationAndWindow) {
  const auto ctx = MakeContext();
  const ModelConfig c = testing::TinyLlama();
  const auto model = MakeTinyModel(c);
  LoraAdapter adapter = MakeAdapter(c);
  const ParameterSet all = ParameterSet::ForLora(adapter);
  const ParameterSet window = ParameterSet::ForLora(adapter, {2, 3});
  const TrainingPass pass(*ctx, *model, 100);
  PassOptions options;
  const int64_t forward = pass.MemoryNeeded(options).total();
  options.lora = &adapter;
  options.gradients = &all.gradients();
  const int64_t full = pass.MemoryNeeded(options).total();
  const Forms layers = {kLayer, kLayer, kLayer}, mlps = {kMlp, kMlp, kMlp};
  options.recompute = layers;
  const int64_t recomputed = pass.MemoryNeeded(options).total();
  const int64_t long_whole = pass.MemoryNeeded(options, 2048).total();
  options.mlp_rows = 256;
  const int64_t long_pieces = pass.MemoryNeeded(options, 2048).total();
  options.recompute = mlps;
  const int64_t mlp_recomputed = pass.MemoryNeeded(options).total();
  options.recompute = {};
  options.gradients = &window.gradients();
  const int64_t windowed = pass.MemoryNeeded(options).total();
  EXPECT_LT(mlp_recomputed, full);
  EXPECT_LT(recomputed, mlp_recomputed);
  EXPECT_LT(long_pieces, long_whole);
  EXPECT_LT(windowed, full);
  EXPECT_LT(forward, windowed);
}

TEST(PassErrors, AreExplained) {
  const auto ctx = MakeContext();
  const ModelConfig c = testing::TinyLlama();
  const auto model = MakeTinyModel(c);
  TrainingPass pass(*ctx, *model, 8);
  const TokenBatch good = RandomDocuments({8}, c.vocab);
  ASSERT_TRUE(pass.Run(good, {}).ok());

  auto fails = [&](const TokenBatch& batch, const PassOptions& options, const char* why) {
    const auto result = pass.Run(batch, options);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.status().message().find(why), std::string::npos) << result.status().message();
  };
  fails({}, {}, "0 tokens");
  fails(RandomDocuments({9}, c.vocab), {}, "9 tokens");
  TokenBatch bad = good;
  bad.ids[3] = 37;
  fails(bad, {}, "vocabulary has 37");
  bad = good;
  bad.ids[3] = -1;
  fails(bad, {}, "vocabulary");
  bad = good;
  bad.targets[0] = 37;
  fails(bad, {}, "vocabulary");
  bad = good;
  bad.positions[2] = 64;
  fails(bad, {}, "position 64");
  bad = good;
  bad.first_key[2] = 3;
  fails(bad, {}, "keys from 3");
  bad = good;
  bad.first_key = {0, 1, 0, 0, 0, 0, 0, 0};
  fails(bad, {}, "keys from 0");
  bad = good;
  bad.targets.pop_back();
  fails(bad, {}, "length");
  PassOptions options;
  options.begin = 1;
  fails(good, options, "hidden state");
  options.begin = 0;
  options.end = 4;
  fails(good, options, "of a model with 3");
}

}  // namespace
}  // namespace edgewise::model
