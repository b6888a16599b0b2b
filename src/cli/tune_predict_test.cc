#include "cli/tune_predict.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "model/save.h"
#include "testing/model_support.h"
#include "testing/tiny_tuning.h"

namespace edgewise::cli {
namespace {

TEST(TunePredict, OrdersAreNamesOrGroups) {
  EXPECT_EQ(*ParseOrder("searched"), 0);
  EXPECT_EQ(*ParseOrder("any", "any"), 0);
  EXPECT_EQ(*ParseOrder("row"), 1);
  EXPECT_GT(*ParseOrder("column"), int64_t{1} << 40);
  EXPECT_EQ(*ParseOrder("3"), 3);
  for (const char* text : {"", "0", "-1", "3x", "1e3", "rows", "any", "99999999999999999999"}) {
    EXPECT_FALSE(ParseOrder(text).ok()) << text;
  }
}

// What a probe of the run says of the operations holds for everything that is computed.
TEST(TunePredict, RescaleScalesWhatIsComputed) {
  RunPrediction p;
  p.device.name = "test";
  p.device.levels = {{"ram", int64_t{1} << 30, 10, 10, 0}, {"disk", 0, 1, 1, 0}};
  plan::KernelRate rate;
  rate.kind = plan::KernelKind::kLinearForward;
  rate.tokens = 8;
  rate.out = rate.in = 16;
  rate.gops = 1e-3;
  p.device.kernels = {rate};
  plan::Op op;
  op.kind = rate.kind;
  op.tokens = 8;
  op.out = op.in = 16;
  op.gops = 2e-9 * 8 * 16 * 16;
  plan::Workload w;
  w.tokens = 8;
  plan::Stage stage;
  stage.name = "layer 0";
  stage.ops = {op};
  w.stages = {stage};
  plan::Choice choice;
  choice.tokens = 8;
  const auto plan = schedule::Evaluate(p.device, w, choice, p.search);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  p.plan = *plan;
  p.steps = 10;
  p.step_seconds = plan->predicted_seconds;
  p.trunk_seconds = 1;
  p.validation_seconds = 2;
  ASSERT_TRUE(Rescale(2, &p).ok());
  EXPECT_NEAR(p.step_seconds, 2 * plan->predicted_seconds, 1e-9 * p.step_seconds);
  EXPECT_EQ(p.trunk_seconds, 2);
  EXPECT_EQ(p.validation_seconds, 4);
  EXPECT_NEAR(p.seconds, 10 * p.step_seconds + 6, 1e-9);
}

// A teacher's passes are part of the time of a step, micro-batch by micro-batch.
TEST(TunePredict, TeachersCount) {
  const auto ctx = testing::MakeContext();
  const auto model = tune::testing::TinyModel();
  const std::vector<int32_t> ids(20, 7);
  TuneData data;
  auto source = tune::DatasetSource::CreateForValidation(
      {data::MakeExample(ids, std::vector<uint8_t>(ids.size(), 1))}, data::Packing::kNone, 20, 1);
  ASSERT_TRUE(source.ok()) << source.status().message();
  data.train = std::move(*source);
  data.max_tokens = 20;
  PredictRequest r{data};
  r.grad_accum = 3;
  r.kinds = {{{0, -1}, false, 10}};
  r.memory = [](int64_t, const plan::Choice&) { return tune::MemoryEstimate{}; };
  r.teacher_seconds = 1;  // of a token: much more than the step itself
  const auto p = PredictRun(*ctx, *model, r);
  ASSERT_TRUE(p.ok()) << p.status().message();
  EXPECT_GE(p->step_seconds, 3 * 20.0);
  EXPECT_LT(p->step_seconds, 3 * 20.0 + 10);
}

// Micro-batches are cut where nothing fits otherwise. (How far, and where they fit as they are, is
// decided by what operations took.)
TEST(TunePredict, CutsWhatDoesNotFit) {
  const std::string dir = ::testing::TempDir() + "edgewise-predict-" + std::to_string(::getpid());
  const auto ctx = testing::MakeContext();
  ASSERT_TRUE(model::SaveHfModel(PosixEnv(), *tune::testing::TinyModel(), DType::kBF16,
                                 model::ConfigToHf(tune::testing::TinyConfig(), DType::kBF16), {},
                                 dir)
                  .ok());
  model::LoadOptions load;
  load.stream = {int64_t{1} << 30, false, int64_t{8} << 20};
  const auto model = model::Model::Load(dir, load);
  ASSERT_TRUE(model.ok()) << model.status().message();
  std::vector<data::Example> examples;
  for (int i = 0; i < 16; ++i) {
    const std::vector<int32_t> ids(20, 7);
    examples.push_back(data::MakeExample(ids, std::vector<uint8_t>(ids.size(), 1)));
  }
  TuneData data;
  auto source =
      tune::DatasetSource::CreateForValidation(std::move(examples), data::Packing::kNone, 20, 8);
  ASSERT_TRUE(source.ok()) << source.status().message();
  data.train = std::move(*source);
  data.max_tokens = 160;
  const auto mean = MeanBatchOf(*data.train, 50);
  ASSERT_TRUE(mean.ok());
  EXPECT_EQ(mean->tokens, 40);
  EXPECT_EQ(mean->parts, 4);
  EXPECT_EQ(mean->document_tokens, 20);
  PredictRequest r{data};
  r.grad_accum = 2;
  r.kinds = {{{0, -1}, false, 10}};
  r.memory_limit = int64_t{1} << 30;
  for (const int64_t fits : {160, 80, 40, 20}) {
    r.memory = [&](int64_t split, const plan::Choice&) {
      tune::MemoryEstimate e;
      e.activations = (split > 0 ? split : 160) <= fits ? 1 << 20 : r.memory_limit;
      return e;
    };
    r.splits = {};
    EXPECT_EQ(PredictRun(*ctx, **model, r).ok(), fits == 160);
    r.splits = {80, 40, 20};
    const auto p = PredictRun(*ctx, **model, r);
    ASSERT_TRUE(p.ok()) << p.status().message();
    const int64_t tokens = p->split_tokens > 0 ? p->split_tokens : 160;
    EXPECT_LE(tokens, fits);
    EXPECT_EQ(p->plan.choice.micro_batches, 2 * 160 / tokens);
    EXPECT_EQ(p->plan.workload.tokens, tokens);
  }
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace edgewise::cli
