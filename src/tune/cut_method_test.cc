// Steps of cut micro-batches against those of whole ones.
#include <gtest/gtest.h>

#include <cmath>

#include "testing/tiny_tuning.h"
#include "tune/batch_source.h"
#include "tune/cut_batch.h"
#include "tune/edge_method_test_util.h"
#include "tune/model_method.h"

namespace edgewise::tune {
namespace {

// The gradients of a step on `batch`, cut to `tokens` (0: not), and its loss.
struct Step {
  std::vector<float> gradients;
  double loss = 0;
};
Step StepOf(Method& method, const TokenBatch& batch, int64_t tokens, int64_t step) {
  Step out;
  std::vector<int32_t> active;
  EXPECT_TRUE(method.BeginStep(step, &active).ok());
  MicroContext c{.step = step,
                 .micro = 0,
                 .seed = 0,
                 .grad_scale = 1 / static_cast<double>(CountSupervised(batch))};
  const std::vector<TokenBatch> parts = CutBatch(batch, tokens);
  for (size_t first = 0; first < parts.size();) {
    std::vector<const TokenBatch*> group;
    std::vector<int64_t> micros;
    for (; first < parts.size() && std::ssize(group) < method.group(); ++first) {
      group.push_back(&parts[first]);
      micros.push_back(static_cast<int64_t>(first));
    }
    std::vector<LossSum> losses;
    const Status status = method.Micros(group, micros, c, &losses);
    EXPECT_TRUE(status.ok()) << status.message();
    for (const LossSum& loss : losses) out.loss += loss.loss_sum;
  }
  for (int32_t i : active) {
    const model::Parameter& p = method.params()[static_cast<size_t>(i)];
    out.gradients.insert(out.gradients.end(), p.grad, p.grad + p.count);
  }
  return out;
}

// `rows` in the sums, which are grouped otherwise: of the order of sqrt(rows) eps of their norm in
// each of a few layers (32 = 2 sqrt(rows) and some more for the layers, as for accumulation).
void ExpectSame(const Step& want, const Step& got) {
  ASSERT_EQ(want.gradients.size(), got.gradients.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    difference += std::pow(want.gradients[i] - got.gradients[i], 2);
    norm += std::pow(want.gradients[i], 2);
  }
  ASSERT_GT(norm, 0);
  EXPECT_LE(std::sqrt(difference), 32 * 6e-8 * std::sqrt(norm));
  EXPECT_NEAR(want.loss, got.loss, 32 * 6e-8 * want.loss);
}

TEST(CutMethod, GradientsAreThoseOfTheWhole) {
  const auto ctx = std::move(*ExecContext::Create({.threads = 2}));
  const std::vector<std::vector<int32_t>> docs = RandomDocuments(9);
  const TokenBatch batch = BatchOf(docs, {0, 1, 2, 3, 4, 5, 6, 7, 8});
  for (MethodKind kind : {MethodKind::kLora, MethodKind::kLastN, MethodKind::kFull}) {
    const auto model = std::move(*model::Model::Random(TinyConfig(), 1));
    ModelMethodOptions o;
    o.kind = kind;
    o.last_layers = 2;
    o.lora.r = 4;
    o.lora.lora_alpha = 8;
    o.lora.targets = formats::LoraConfig::Targets::kAllLinear;
    auto whole = ModelMethod::Create(*ctx, *model, o, batch.size());
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    const Step want = StepOf(**whole, batch, 0, 0);
    for (int64_t tokens : {1, 24, 50}) {
      SCOPED_TRACE(std::string(MethodName(kind)) + " " + std::to_string(tokens));
      o.group = kind == MethodKind::kFull || tokens == 24 ? 1 : 3;
      auto cut = ModelMethod::Create(*ctx, *model, o, std::max<int64_t>(tokens, 24));
      ASSERT_TRUE(cut.ok());
      ExpectSame(want, StepOf(**cut, batch, tokens, 0));
    }
  }
}

TEST_F(EdgeMethodTest, GradientsOfCutMicroBatchesAreThoseOfTheWhole) {
  const TokenBatch batch = BatchOf(docs_, {0, 1, 2, 3, 4, 5, 6});
  for (TrunkMode mode : {TrunkMode::kFrozen, TrunkMode::kCumulative}) {
    for (const bool distilled : {false, true}) {
      for (const char* cache : {"", "cache"}) {
        SCOPED_TRACE(std::string(TrunkModeName(mode)) + (distilled ? " distilled " : " ") + cache);
        EdgeOptions o = Options(mode, cache);
        const auto teacher = std::move(*model::Model::Random(TinyConfig(), 2));
        if (distilled) {
          o.teacher = teacher.get();
          o.teacher_weight = 0.5;
          o.teacher_name = "teacher";
        }
        auto whole = Make(o);
        if (!o.trunk.cache_path.empty()) o.trunk.cache_path += "-cut";
        auto cut = Make(o);
        const int64_t needed = cut->MemoryNeeded().total();
        const Status status = cut->SetMaxTokens(40, 40);
        ASSERT_TRUE(status.ok()) << status.message();
        EXPECT_LT(cut->MemoryNeeded().total(), needed);
        EXPECT_EQ(cut->MemoryNeeded(128).total(), needed);
        cut->SetGroup(2);
        for (int64_t step : {0, 25, 50}) {
          ExpectSame(StepOf(*whole, batch, 0, step), StepOf(*cut, batch, 40, step));
        }
        EXPECT_FALSE(cut->Micro(batch, {}).ok());  // larger than planned
      }
    }
  }
}

// States below the windows are those of one way to cut micro-batches, and until one is chosen what
// is there stays.
TEST_F(EdgeMethodTest, KeptStatesBelongToHowMicroBatchesAreCut) {
  EdgeOptions o = Options(TrunkMode::kFrozen, "cache");
  std::vector<int32_t> active;
  {
    auto cut = Make(o);
    ASSERT_TRUE(cut->SetMaxTokens(40, 40).ok());
    EXPECT_FALSE(cut->trunk().Complete());
    ASSERT_TRUE(cut->BeginStep(0, &active).ok());
    EXPECT_TRUE(cut->trunk().Complete());
  }
  o.trunk.undecided = true;
  {
    auto whole = Make(o);
    EXPECT_EQ(whole->trunk().cache(), nullptr);
    ASSERT_TRUE(whole->SetMaxTokens(32, 32).ok());
    EXPECT_EQ(whole->trunk().cache(), nullptr);
    ASSERT_TRUE(whole->SetMaxTokens(40, 40).ok());
    EXPECT_TRUE(whole->trunk().Complete());
    ASSERT_TRUE(whole->Settle().ok());
    EXPECT_TRUE(whole->trunk().Complete());
    EXPECT_FALSE(whole->SetMaxTokens(8, 8).ok());  // the documents are longer
  }
  {
    auto whole = Make(o);
    ASSERT_TRUE(whole->Settle().ok());
    ASSERT_NE(whole->trunk().cache(), nullptr);
    EXPECT_FALSE(whole->trunk().Complete());
  }
}

}  // namespace
}  // namespace edgewise::tune
