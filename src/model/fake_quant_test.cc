#include "model/fake_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "model/adapted_linear.h"
#include "model/training_pass.h"
#include "testing/model_support.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

std::vector<float> Normal(size_t n, double deviation, uint64_t seed) {
  Rng rng(seed, RngStream::kTest);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(deviation * rng.NextNormal());
  return v;
}

TEST(FakeQuant, RoundsRowByRowAsReleased) {
  const auto ctx = testing::MakeContext();
  constexpr int64_t kRows = 3, kCols = 50;
  std::vector<float> x = Normal(kRows * kCols, 1, 1), out(x.size());
  for (int64_t i = 0; i < kCols; ++i) x[static_cast<size_t>(i)] = 0;  // a row of zeros
  for (int bits : {2, 4, 8}) {
    FakeQuantize(*ctx, bits, kRows, kCols, x.data(), out.data());
    const double levels = std::pow(2.0, bits - 1) - 1;
    for (size_t r = 0; r < kRows; ++r) {
      double top = 0;
      for (size_t i = 0; i < kCols; ++i) top = std::max<double>(top, std::fabs(x[r * kCols + i]));
      const double s = levels / (top + 1e-6);
      for (size_t i = 0; i < kCols; ++i) {
        const double scaled = x[r * kCols + i] * s, got = out[r * kCols + i] * (s + 1e-6);
        EXPECT_NEAR(got, std::round(got), 1e-4);         // on the grid
        EXPECT_LE(std::fabs(got - scaled), 0.5 + 1e-4);  // at the nearest point of it
        EXPECT_LE(std::fabs(got), levels + 1e-4);
      }
    }
  }
}

TEST(FakeQuant, GradientsPassBelowTheLimit) {
  const auto ctx = testing::MakeContext();
  const std::vector<float> x = {0.5f, -1.99f, 2.0f, -2.0f, 3.0f}, dy = {1, 2, 3, 4, 5};
  std::vector<float> dx(5, 10);
  StraightThrough(*ctx, 5, x.data(), dy.data(), dx.data(), kernels::Accumulate::kAdd);
  EXPECT_EQ(dx, (std::vector<float>{11, 12, 10, 10, 10}));
  StraightThrough(*ctx, 5, x.data(), dy.data(), dx.data(), kernels::Accumulate::kOverwrite);
  EXPECT_EQ(dx, (std::vector<float>{1, 2, 0, 0, 0}));
}

// The base sees rounded inputs, the adapter the others; so do their gradients.
TEST(FakeQuant, OfALinearIsThatOfItsParts) {
  const auto ctx = testing::MakeContext();
  constexpr int64_t kRows = 7, kIn = 24, kOut = 16, kRank = 3;
  constexpr int kBits = 4;
  const auto w = Normal(kOut * kIn, 0.3, 1), x = Normal(kRows * kIn, 1.2, 2),
             dy = Normal(kRows * kOut, 1, 3);
  auto a = Normal(kRank * kIn, 0.3, 4), b = Normal(kOut * kRank, 0.3, 5);
  LoraSlot slot{kRank, kIn, kOut, 0.5f, a.data(), b.data()};
  Linear base;
  base.weight = kernels::WeightRef::Dense(w.data(), kOut, kIn);
  AdaptedLinear linear{base, &slot, {}, {}, nullptr, kBits};
  std::vector<float> rounded(kRows * kIn), dxa(kRows * kRank), xa(kRows * kRank), y(kRows * kOut),
      dx(kRows * kIn), da(kRank * kIn), db(kOut * kRank);
  AdapterScratch scratch;
  scratch.dxa = dxa.data();
  scratch.rounded = rounded.data();
  AdaptedForward(*ctx, linear, kRows, x.data(), y.data(), kernels::Accumulate::kOverwrite,
                 xa.data(), scratch);
  LinearGradients grads;
  grads.lora_a = da.data(), grads.lora_b = db.data();
  AdaptedBackward(*ctx, linear, grads, kRows, x.data(), xa.data(), dy.data(), dx.data(),
                  kernels::Accumulate::kOverwrite, scratch);

  std::vector<float> xq(x.size());
  FakeQuantize(*ctx, kBits, kRows, kIn, x.data(), xq.data());
  int masked = 0;
  for (size_t t = 0; t < kRows; ++t) {
    for (size_t o = 0; o < kOut; ++o) {
      double want = 0;
      for (size_t i = 0; i < kIn; ++i) {
        want += static_cast<double>(w[o * kIn + i]) * xq[t * kIn + i];
        for (size_t r = 0; r < kRank; ++r) {
          want += 0.5 * b[o * kRank + r] * static_cast<double>(a[r * kIn + i]) * x[t * kIn + i];
        }
      }
      EXPECT_NEAR(y[t * kOut + o], want, 1e-5);
    }
    for (size_t i = 0; i < kIn; ++i) {
      const bool passes = std::fabs(x[t * kIn + i]) < 2;
      masked += passes ? 0 : 1;
      double want = 0;
      for (size_t o = 0; o < kOut; ++o) {
        if (passes) want += static_cast<double>(w[o * kIn + i]) * dy[t * kOut + o];
        for (size_t r = 0; r < kRank; ++r) {
          want += 0.5 * b[o * kRank + r] * static_cast<double>(a[r * kIn + i]) * dy[t * kOut + o];
        }
      }
      EXPECT_NEAR(dx[t * kIn + i], want, 2e-5);
    }
  }
  EXPECT_GT(masked, 0);
}

class FakeQuantPass : public ::testing::TestWithParam<testing::TinyModel> {
 protected:
  struct Step {
    double loss = 0;
    std::vector<float> grads;
  };
  Step RunStep(int threads, PassOptions options) {
    const ModelConfig& c = GetParam().config;
    const auto ctx = testing::MakeContext(threads);
    const auto model = testing::MakeTinyModel(c);
    LoraConfig lora;
    lora.r = 3;
    lora.targets = LoraConfig::Targets::kAllLinear;
    auto adapter = LoraAdapter::Create(c, lora, 5);
    Rng rng(5, RngStream::kTest);
    for (float& v : adapter->values().span()) v = static_cast<float>(0.1 * rng.NextNormal());
    ParameterSet set = ParameterSet::ForLora(*adapter);
    options.lora = &*adapter;
    options.gradients = &set.gradients();
    options.grad_scale = 0.1;
    const TokenBatch batch = testing::RandomDocuments({13, 8}, c.vocab);
    TrainingPass pass(*ctx, *model, batch.size());
    const auto result = pass.Run(batch, options);
    EXPECT_TRUE(result.ok()) << result.status().message();
    const PassMemory planned = pass.MemoryNeeded(options), taken = pass.memory();
    EXPECT_EQ(planned.total(), taken.total());
    return {result->loss_sum,
            std::vector<float>(set.grads().data(), set.grads().data() + set.count())};
  }
};

TEST_P(FakeQuantPass, RecomputationAndThreadsChangeNoBit) {
  PassOptions options;
  options.activation_bits = 4;
  const Step plain = RunStep(1, options), threads = RunStep(2, options);
  EXPECT_EQ(plain.loss, threads.loss);
  EXPECT_EQ(plain.grads, threads.grads);
  const std::vector recompute(GetParam().config.layers.size(), plan::Recompute::kLayer);
  options.recompute = recompute;
  const Step again = RunStep(2, options);
  EXPECT_EQ(plain.loss, again.loss);
  EXPECT_EQ(plain.grads, again.grads);
}

TEST_P(FakeQuantPass, ComesCloserWithEveryBit) {
  const Step exact = RunStep(2, {});
  double before = INFINITY;
  for (int bits : {3, 6, 10}) {
    PassOptions options;
    options.activation_bits = bits;
    const double off = std::fabs(RunStep(2, options).loss - exact.loss);
    EXPECT_GT(off, 0) << bits;
    EXPECT_LT(off, before) << bits;
    before = off;
  }
  PassOptions options;
  options.activation_bits = 17;
  const auto ctx = testing::MakeContext();
  const auto model = testing::MakeTinyModel(GetParam().config);
  TrainingPass pass(*ctx, *model, 32);
  EXPECT_FALSE(pass.Run(testing::RandomDocuments({8}, GetParam().config.vocab), options).ok());
}

INSTANTIATE_TEST_SUITE_P(Tiny, FakeQuantPass, ::testing::ValuesIn(testing::TinyModels()),
                         [](const auto& i) { return i.param.name; });

}  // namespace
}  // namespace edgewise::model
