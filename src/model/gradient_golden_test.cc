// Gradients, with logits and losses, as Hugging Face transformers and PEFT compute them: adapters,
// exits and windows, and every base weight.
#include <gtest/gtest.h>

#include <filesystem>

#include "io/json.h"
#include "model/training_pass.h"
#include "testing/golden.h"
#include "testing/model_support.h"
#include "testing/paths.h"

namespace edgewise::model {
namespace {

using testing::CountTargets;
using testing::Fp32Tolerance;
using testing::GoldenFile;
using testing::LargestOf;
using testing::MaxDifference;
using testing::OpenGolden;
using testing::PackRows;
using testing::ReadGolden;
using testing::RelativeL2;

std::string Root() { return testing::GoldenDir() + "/models/"; }

struct PassRun {
  kernels::HeadLossResult loss;
  std::vector<float> hidden, logits;
  double mean() const { return loss.loss_sum / static_cast<double>(loss.labelled); }
};

// Loss, gradients of the mean loss, hidden state at the exit and its logits.
PassRun RunPass(ExecContext& ctx, const Model& model, const TokenBatch& batch,
                PassOptions options) {
  PassRun run;
  const ModelConfig& c = model.config();
  const int64_t end = options.end < 0 ? c.num_layers() : options.end;
  run.hidden.resize(static_cast<size_t>(batch.size() * c.hidden));
  options.grad_scale = 1.0 / static_cast<double>(CountTargets(batch));
  options.observe = [&](int64_t done, const float* h) {
    if (done == end) std::copy_n(h, run.hidden.size(), run.hidden.data());
  };
  TrainingPass pass(ctx, model, batch.size());
  auto loss = pass.Run(batch, options);
  EXPECT_TRUE(loss.ok()) << loss.status().message();
  if (loss.ok()) run.loss = *loss;
  run.logits.resize(static_cast<size_t>(batch.size() * c.vocab));
  EXPECT_TRUE(pass.Logits(batch.size(), run.hidden.data(), run.logits.data(), options.head).ok());
  return run;
}

// A gradient has passed the layers forward and backward (three times the sums), in the reference's
// fp32 as in ours.
void ExpectGradients(const ParameterSet& set, const ModelConfig& c, int64_t layers,
                     const GoldenFile& golden, const std::string& prefix) {
  const double relative = 2 * Fp32Tolerance(c, 3 * layers, 1.0);
  double worst = 0;
  for (const Parameter& p : set.params()) {
    const auto expected = ReadGolden<float>(golden, prefix + p.name);
    ASSERT_EQ(static_cast<int64_t>(expected.size()), p.count) << p.name;
    const double difference = RelativeL2(p.grad, expected);
    EXPECT_LE(difference, relative) << p.name;
    EXPECT_LE(MaxDifference(p.grad, expected), 4 * relative * LargestOf(expected)) << p.name;
    worst = std::max(worst, difference);
  }
  ::testing::Test::RecordProperty("gradient_relative_l2", std::to_string(worst * 1e6) + "e-6");
}

struct LoraCase {
  std::string model, adapter, golden;
};

std::vector<LoraCase> LoraCases() {
  const auto index = ReadJsonFile(Root() + "index.json");
  std::vector<LoraCase> cases;
  if (!index.ok()) return cases;
  for (const Json& l : (*index)["lora"]) cases.push_back({l["model"], l["adapter"], l["golden"]});
  return cases;
}

class GoldenLora : public ::testing::TestWithParam<LoraCase> {};

TEST_P(GoldenLora, LogitsLossAndGradients) {
  const auto ctx = testing::MakeContext();
  auto model = Model::Load(Root() + GetParam().model);
  ASSERT_TRUE(model.ok()) << model.status().message();
  const ModelConfig& c = (*model)->config();
  auto adapter = LoadPeftAdapter(Root() + GetParam().adapter, c);
  ASSERT_TRUE(adapter.ok()) << adapter.status().message();
  const GoldenFile golden = OpenGolden(Root() + GetParam().golden);
  const auto ids = ReadGolden<int64_t>(golden, "input_ids");
  const TokenBatch batch =
      PackRows(ids, ReadGolden<int64_t>(golden, "labels"), static_cast<int64_t>(ids.size()) / 2);

  ParameterSet set = ParameterSet::ForLora(*adapter);
  EXPECT_EQ(set.count(), adapter->parameter_count());
  PassOptions options;
  options.lora = &*adapter;
  options.gradients = &set.gradients();
  const PassRun run = RunPass(*ctx, **model, batch, options);
  const auto logits = ReadGolden<float>(golden, "logits");
  const double tolerance = Fp32Tolerance(c, c.num_layers(), LargestOf(logits));
  EXPECT_LE(MaxDifference(run.logits.data(), logits), 2 * tolerance);
  EXPECT_NEAR(run.mean(), ReadGolden<double>(golden, "loss_f64")[0], tolerance);
  ExpectGradients(set, c, c.num_layers(), golden, "grad.");

  // Merged into the weights it is the same model.
  ASSERT_TRUE(MergeLora(**model, *adapter).ok());
  const PassRun merged = RunPass(*ctx, **model, batch, {});
  EXPECT_LE(MaxDifference(merged.logits.data(), logits), 2 * tolerance);
}

TEST_P(GoldenLora, SurvivesSaving) {
  auto model = Model::Load(Root() + GetParam().model);
  ASSERT_TRUE(model.ok());
  const ModelConfig& c = (*model)->config();
  auto adapter = LoadPeftAdapter(Root() + GetParam().adapter, c);
  ASSERT_TRUE(adapter.ok());
  const std::string dir = ::testing::TempDir() + "/saved_adapter_" + std::to_string(::getpid());
  const Status saved = SavePeftAdapter(dir, *adapter, "base");
  ASSERT_TRUE(saved.ok()) << saved.message();
  auto again = LoadPeftAdapter(dir, c);
  ASSERT_TRUE(again.ok()) << again.status().message();
  ASSERT_EQ(again->parameter_count(), adapter->parameter_count());
  for (int64_t i = 0; i < adapter->parameter_count(); ++i) {
    ASSERT_EQ(again->values()[i], adapter->values()[i]);
  }
  for (int64_t layer = 0; layer < c.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LoraSlot *a = adapter->slot(layer, kind), *b = again->slot(layer, kind);
      ASSERT_EQ(a == nullptr, b == nullptr);
      if (a != nullptr) {
        EXPECT_EQ(a->scale, b->scale);
      }
    }
  }
  std::filesystem::remove_all(dir);
}

std::string CaseName(const ::testing::TestParamInfo<LoraCase>& info) {
  std::string name = info.param.adapter;
  for (char& ch : name) {
    if (!std::isalnum(static_cast<unsigned char>(ch))) ch = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, GoldenLora, ::testing::ValuesIn(LoraCases()), CaseName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenLora);

TEST(GoldenGradients, OfEveryBaseWeight) {
  EW_REQUIRE_DIR(Root());
  const auto ctx = testing::MakeContext();
  auto model = Model::Load(Root() + "llama");
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_TRUE((*model)->MakeTrainable().ok());
  const ModelConfig& c = (*model)->config();
  const GoldenFile golden = OpenGolden(Root() + "llama/full_grads.safetensors");
  const auto ids = ReadGolden<int64_t>(golden, "input_ids");
  const TokenBatch batch =
      PackRows(ids, ReadGolden<int64_t>(golden, "labels"), static_cast<int64_t>(ids.size()) / 2);
  auto set = ParameterSet::ForModel(**model);
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(set->count(), c.parameter_count());
  PassOptions options;
  options.gradients = &set->gradients();
  const PassRun run = RunPass(*ctx, **model, batch, options);
  EXPECT_NEAR(run.mean(), ReadGolden<double>(golden, "loss_f64")[0],
              Fp32Tolerance(c, c.num_layers(), 10));
  ExpectGradients(*set, c, c.num_layers(), golden, "grad.");
}

TEST(GoldenGradients, OfWindowsBelowExits) {
  EW_REQUIRE_DIR(Root());
  const auto index = ReadJsonFile(Root() + "index.json");
  ASSERT_TRUE(index.ok());
  const Json& exits = (*index)["exits"];
  const auto ctx = testing::MakeContext();
  auto model = Model::Load(Root() + exits["model"].get<std::string>());
  ASSERT_TRUE(model.ok()) << model.status().message();
  const ModelConfig& c = (*model)->config();
  auto adapter = LoadPeftAdapter(Root() + exits["adapter"].get<std::string>(), c);
  ASSERT_TRUE(adapter.ok()) << adapter.status().message();
  const GoldenFile golden = OpenGolden(Root() + exits["golden"].get<std::string>());
  const auto ids = ReadGolden<int64_t>(golden, "input_ids");
  const TokenBatch batch =
      PackRows(ids, ReadGolden<int64_t>(golden, "labels"), static_cast<int64_t>(ids.size()) / 2);
  int64_t start = 0;
  for (int64_t exit : exits["exits"].get<std::vector<int64_t>>()) {
    const std::string prefix = "exit." + std::to_string(exit) + ".";
    SCOPED_TRACE(prefix);
    // The trunk below the window runs without adapters.
    std::vector<float> hidden(static_cast<size_t>(batch.size() * c.hidden));
    TrainingPass pass(*ctx, **model, batch.size());
    ASSERT_TRUE(pass.Embed(batch, hidden.data()).ok());
    ASSERT_TRUE(pass.Forward(batch, {0, start}, nullptr, hidden.data()).ok());
    const auto h_start = ReadGolden<float>(golden, prefix + "h_start");
    EXPECT_LE(MaxDifference(hidden.data(), h_start),
              2 * Fp32Tolerance(c, exit, LargestOf(h_start)));

    ParameterSet set = ParameterSet::ForLora(*adapter, {start, exit});
    PassOptions options;
    options.end = exit;
    options.lora = &*adapter;
    options.lora_begin = start;
    options.gradients = &set.gradients();
    const PassRun whole = RunPass(*ctx, **model, batch, options);
    const auto h = ReadGolden<float>(golden, prefix + "h");
    const auto logits = ReadGolden<float>(golden, prefix + "logits");
    EXPECT_LE(MaxDifference(whole.hidden.data(), h), 2 * Fp32Tolerance(c, exit, LargestOf(h)));
    EXPECT_LE(MaxDifference(whole.logits.data(), logits),
              2 * Fp32Tolerance(c, exit, LargestOf(logits)));
    EXPECT_NEAR(whole.mean(), ReadGolden<double>(golden, prefix + "loss_f64")[0],
                Fp32Tolerance(c, exit, LargestOf(logits)));
    ExpectGradients(set, c, exit, golden, prefix + "grad.");

    // From the state at the window's start the step has the same bits.
    ParameterSet from_start = ParameterSet::ForLora(*adapter, {start, exit});
    options.begin = start;
    options.start_hidden = hidden.data();
    options.gradients = &from_start.gradients();
    const PassRun window = RunPass(*ctx, **model, batch, options);
    EXPECT_EQ(window.hidden, whole.hidden);
    EXPECT_EQ(window.loss.loss_sum, whole.loss.loss_sum);
    for (int64_t i = 0; i < set.count(); ++i) {
      ASSERT_EQ(from_start.grads()[i], set.grads()[i]);
    }
    start = exit;
  }
}

}  // namespace
}  // namespace edgewise::model
