// Gradients against differences of the loss, for every flag of a model.
#include <gtest/gtest.h>

#include "model/training_pass.h"
#include "testing/model_support.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

using testing::MakeTinyModel;
using testing::RandomDocuments;
using testing::TinyModel;

// Compares the gradient of each parameter with the slope of the loss along it. `loss` evaluates the
// loss at the values as they are.
void CheckSlopes(const std::vector<Parameter>& params, const std::function<double()>& loss) {
  for (const Parameter& p : params) {
    double norm = 0;
    for (int64_t i = 0; i < p.count; ++i) norm += static_cast<double>(p.grad[i]) * p.grad[i];
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0) << p.name << " gets no gradient";
    const std::vector<float> saved(p.value, p.value + p.count);
    auto slope = [&](double step) {
      double change[2];
      for (int side : {0, 1}) {
        for (int64_t i = 0; i < p.count; ++i) {
          const double direction = p.grad[i] / norm;
          p.value[i] = static_cast<float>(saved[static_cast<size_t>(i)] +
                                          (side == 0 ? step : -step) * direction);
        }
        change[side] = loss();
      }
      std::copy(saved.begin(), saved.end(), p.value);
      return (change[0] - change[1]) / (2 * step);
    };
    // Along the gradient the slope is its norm. Two step sizes bound the error of the difference
    // itself (third order in the step); the rest is the rounding of two fp32 losses.
    const double step = 0.003, coarse = slope(2 * step), fine = slope(step);
    const double rounding = 16 * 0x1.0p-24 * loss() / step;
    EXPECT_NEAR(fine + (fine - coarse) / 3, norm, std::abs(fine - coarse) / 3 + rounding) << p.name;
  }
}

class Gradients : public ::testing::TestWithParam<TinyModel> {
 protected:
  const ModelConfig& c() const { return GetParam().config; }

  void Check(const std::vector<Parameter>& params, const PassOptions& options) {
    TrainingPass pass(*ctx_, *model_, batch_.size());
    const auto result = pass.Run(batch_, options);
    ASSERT_TRUE(result.ok()) << result.status().message();
    PassOptions loss_only = options;
    loss_only.gradients = nullptr;
    CheckSlopes(params, [&] {
      auto loss = pass.Run(batch_, loss_only);
      EXPECT_TRUE(loss.ok());
      return loss->loss_sum * options.grad_scale;
    });
  }

  std::unique_ptr<ExecContext> ctx_ = testing::MakeContext(1);
  std::unique_ptr<Model> model_ = MakeTinyModel(GetParam().config);
  TokenBatch batch_ = RandomDocuments({9, 3, 12}, GetParam().config.vocab);
};

TEST_P(Gradients, OfEveryWeight) {
  auto set = ParameterSet::ForModel(*model_);
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(set->count(), c().parameter_count());
  PassOptions options;
  options.gradients = &set->gradients();
  options.grad_scale = 0.1;
  Check(set->params(), options);
}

LoraAdapter MakeAdapter(const ModelConfig& config, double dropout) {
  LoraConfig lora;
  lora.r = 3;
  lora.lora_alpha = 3;
  lora.lora_dropout = dropout;
  lora.targets = LoraConfig::Targets::kAllLinear;
  auto adapter = LoraAdapter::Create(config, lora, 5);
  EXPECT_TRUE(adapter.ok()) << adapter.status().message();
  Rng rng(5, RngStream::kTest);
  for (float& v : adapter->values().span()) v = static_cast<float>(0.2 * rng.NextNormal());
  return std::move(*adapter);
}

TEST_P(Gradients, OfAdaptersWithDropout) {
  LoraAdapter adapter = MakeAdapter(c(), 0.2);
  ParameterSet set = ParameterSet::ForLora(adapter);
  PassOptions options;
  options.lora = &adapter;
  options.gradients = &set.gradients();
  options.grad_scale = 0.1;
  options.dropout = 0.2f;
  options.dropout_seed = 3;
  options.dropout_key = 17;
  Check(set.params(), options);
}

TEST_P(Gradients, OfAWindowAboveAFrozenAdapter) {
  LoraAdapter adapter = MakeAdapter(c(), 0);
  ParameterSet set = ParameterSet::ForLora(adapter, {1, 2});
  PassOptions options;
  options.lora = &adapter;
  options.end = 2;
  options.gradients = &set.gradients();
  options.grad_scale = 0.1;
  Check(set.params(), options);
  // Trained below a frozen adapter: its input gradient still passes through it.
  ParameterSet lowest = ParameterSet::ForLora(adapter, {0, 1});
  options.gradients = &lowest.gradients();
  Check(lowest.params(), options);
}

TEST_P(Gradients, OfAnExitHead) {
  const int64_t h = c().hidden, v = c().vocab, r = 2;
  Rng rng(9, RngStream::kTest);
  auto random = [&](int64_t n) {
    FloatBuffer b(n);
    for (float& x : b.span()) x = static_cast<float>(0.5 * rng.NextNormal());
    return b;
  };
  FloatBuffer norm = random(h), a = random(r * h), b = random(v * r), own = random(v * h);
  FloatBuffer dnorm = FloatBuffer::Zeros(h), da = FloatBuffer::Zeros(r * h),
              db = FloatBuffer::Zeros(v * r), down = FloatBuffer::Zeros(v * h);
  const kernels::WeightRef head = kernels::WeightRef::Dense(own.data(), v, h);
  GradientMap none;
  none.layers.resize(c().layers.size());
  PassOptions options;
  options.end = 2;
  options.gradients = &none;
  options.grad_scale = 0.1;
  options.head = {norm.data(), dnorm.data(), r,         0.7f,  a.data(),
                  b.data(),    da.data(),    db.data(), &head, down.data()};
  Check({{"norm", {h}, h, norm.data(), dnorm.data()},
         {"a", {r, h}, r * h, a.data(), da.data()},
         {"b", {v, r}, v * r, b.data(), db.data()},
         {"head", {v, h}, v * h, own.data(), down.data()}},
        options);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Gradients, ::testing::ValuesIn(testing::TinyModels()),
                         [](const auto& i) { return i.param.name; });

}  // namespace
}  // namespace edgewise::model
