#include "tune/model_method.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "testing/paths.h"
#include "testing/tiny_tuning.h"
#include "tune/memory_estimate.h"
#include "tune/trainer.h"

namespace edgewise::tune {
namespace {

namespace fs = std::filesystem;
using testing::TinyModel;
using testing::TinySource;

formats::LoraConfig SmallLora() {
  formats::LoraConfig lora;
  lora.r = 4;
  lora.lora_alpha = 8;
  lora.targets = formats::LoraConfig::Targets::kAllLinear;
  return lora;
}

std::string Text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

class ModelMethodTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = fs::path(edgewise::testing::TempRoot()) /
            ("edgewise-method-" + std::to_string(::getpid()) + "-" + info->name());
    fs::remove_all(root_);
    method_.lora = SmallLora();
    options_.max_steps = 12;
    options_.lr = {.lr = 0.01, .warmup_steps = 2};
    options_.grad_accum = 2;
    options_.eval_every = 4;
    options_.resume = ResumeMode::kAuto;
  }
  void TearDown() override { fs::remove_all(root_); }

  // Runs in `dir` until done or `stop_at` steps; returns the bytes of the result.
  std::string Run(const std::string& dir, int threads = 1, int64_t stop_at = -1,
                  DType dtype = DType::kF32) {
    auto ctx = ExecContext::Create({.threads = threads});
    EXPECT_TRUE(ctx.ok());
    auto model = TinyModel(dtype);
    auto method = ModelMethod::Create(**ctx, *model, method_, train_.max_tokens());
    EXPECT_TRUE(method.ok()) << method.status().message();
    if (!method.ok()) return "";
    TrainOptions options = options_;
    options.run_dir = (root_ / dir).string();
    std::atomic<bool> stop{false};
    TrainHooks hooks;
    hooks.stop = &stop;
    first_loss_ = last_loss_ = 0;
    hooks.on_event = [&](const report::Event& e) {
      const auto* step = std::get_if<report::StepEvent>(&e);
      if (step == nullptr) return;
      if (step->step == 1) first_loss_ = step->loss;
      last_loss_ = step->loss;
      if (step->step == stop_at) stop = true;
    };
    TrainInputs inputs{.train = &train_,
                       .valid = &valid_,
                       .base_path = "tiny",
                       .base_fingerprint = "tiny-5",
                       .version = "test",
                       .extra_json = ""};
    Trainer trainer(**ctx, PosixEnv(), **method, options, inputs, hooks);
    const Status status = trainer.Run();
    EXPECT_EQ(status.code(), stop_at < 0 ? StatusCode::kOk : StatusCode::kInterrupted)
        << status.message();
    result_ = trainer.result();
    const bool full = method_.kind == MethodKind::kFull;
    return Text(root_ / dir / (full ? "model.safetensors" : "adapter_model.safetensors"));
  }

  fs::path root_;
  ModelMethodOptions method_;
  TrainOptions options_;
  TinySource train_{1, 9}, valid_{2, 2};
  TrainResult result_;
  double first_loss_ = 0, last_loss_ = 0;
};

// The random head of the tiny model is small and frozen under LoRA: its logits stay within about
// 0.6, so the loss can fall by no more than that.
TEST_F(ModelMethodTest, LoraLearns) {
  options_.max_steps = 120;
  EXPECT_FALSE(Run("run").empty());
  EXPECT_LT(last_loss_, first_loss_ - 0.2) << first_loss_;
  EXPECT_LT(*result_.state.valid_loss, *result_.state.start_valid_loss - 0.2);
}

TEST_F(ModelMethodTest, FullLearnsAndSavesEveryWeight) {
  method_.kind = MethodKind::kFull;
  options_.max_steps = 120;
  const std::string file = Run("run");
  EXPECT_LT(last_loss_, first_loss_ - 0.5) << first_loss_;
  EXPECT_GT(static_cast<int64_t>(file.size()), testing::TinyConfig().parameter_count() * 4);
  EXPECT_TRUE(file.find("model.embed_tokens.weight") != std::string::npos);
}

TEST_F(ModelMethodTest, LastLayersTrainOnlyThose) {
  method_.kind = MethodKind::kLastN;
  method_.last_layers = 1;
  options_.max_steps = 120;
  const std::string file = Run("run");
  EXPECT_TRUE(file.find("layers.1.") == std::string::npos);
  EXPECT_TRUE(file.find("layers.2.") != std::string::npos);
  EXPECT_LT(last_loss_, first_loss_ - 0.1) << first_loss_;
}

TEST_F(ModelMethodTest, SameBitsWithOneAndTwoThreads) {
  method_.lora.lora_dropout = 0.1;
  const std::string one = Run("one", 1);
  ASSERT_FALSE(one.empty());
  EXPECT_TRUE(one == Run("two", 2));
}

TEST_F(ModelMethodTest, ResumedRunIsTheUninterruptedOneBitForBit) {
  method_.lora.lora_dropout = 0.1;
  for (MethodKind kind : {MethodKind::kLora, MethodKind::kLastN, MethodKind::kFull}) {
    method_.kind = kind;
    method_.last_layers = 2;
    const std::string name(MethodName(kind));
    const std::string whole = Run(name);
    ASSERT_FALSE(whole.empty());
    Run(name + "-parts", 2, 1);
    Run(name + "-parts", 1, 5);
    Run(name + "-parts", 2, 8);
    EXPECT_TRUE(Run(name + "-parts", 1) == whole) << name;
  }
}

TEST_F(ModelMethodTest, RecomputationChangesNoBit) {
  const std::string kept = Run("kept");
  method_.recompute = plan::Recompute::kLayer;
  EXPECT_TRUE(Run("again") == kept);
}

TEST_F(ModelMethodTest, GroupsOfMicroBatchesChangeNoBit) {
  method_.lora.lora_dropout = 0.1;
  options_.grad_accum = 5;
  const std::string rows = Run("rows");
  for (int64_t group : {2, 5, 9}) {
    method_.group = group;
    EXPECT_TRUE(Run("group" + std::to_string(group)) == rows) << group;
    // Nor does it matter that what layers keep passes through the disk, and is computed again.
    model::ActivationSpill spill(PosixEnv(), ::testing::TempDir());
    method_.layers_in_memory = group % 2;
    method_.spill = &spill;
    method_.recompute = group == 5 ? plan::Recompute::kMlp : plan::Recompute::kNone;
    EXPECT_TRUE(Run("spilled" + std::to_string(group), 2) == rows) << group;
    EXPECT_GT(spill.stats().bytes_written, 0);
    method_.layers_in_memory = -1;
    method_.recompute = plan::Recompute::kNone;
  }
}

// Runs of cut micro-batches keep what other runs promise.
TEST_F(ModelMethodTest, CutMicroBatchesStayTheSameBits) {
  method_.lora.lora_dropout = 0.1;
  options_.split_tokens = 24;
  const std::string whole = Run("whole");
  ASSERT_FALSE(whole.empty());
  Run("parts", 2, 3);
  EXPECT_TRUE(Run("parts", 2) == whole);
  method_.group = 3;
  method_.recompute = plan::Recompute::kLayer;
  model::ActivationSpill spill(PosixEnv(), ::testing::TempDir());
  method_.layers_in_memory = 1;
  method_.spill = &spill;
  EXPECT_TRUE(Run("group", 2) == whole);
  EXPECT_GT(spill.stats().bytes_written, 0);
}

TEST_F(ModelMethodTest, HalfPrecisionBasesLearn) {
  options_.max_steps = 120;
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    method_.base_dtype = dtype;
    Run(std::string(DTypeName(dtype)), 1, -1, dtype);
    EXPECT_LT(last_loss_, first_loss_ - 0.2) << DTypeName(dtype);
  }
}

TEST_F(ModelMethodTest, AccumulationEqualsOneBigBatchWithinRounding) {
  auto ctx = ExecContext::Create({.threads = 1});
  auto model = TinyModel();
  auto method = ModelMethod::Create(**ctx, *model, method_, 96);
  ASSERT_TRUE(method.ok());
  // Two documents with one supervised token against two with many: means of means would differ.
  TokenBatch a = *train_.Get(0, 0), b = *train_.Get(0, 1);
  for (size_t t = 0; t + 30 < a.targets.size(); ++t) a.targets[t] = TokenBatch::kNoTarget;
  TokenBatch both = a;
  for (size_t t = 0; t < b.ids.size(); ++t) {
    both.ids.push_back(b.ids[t]);
    both.positions.push_back(b.positions[t]);
    both.first_key.push_back(b.first_key[t] + static_cast<int32_t>(a.ids.size()));
    both.targets.push_back(b.targets[t]);
  }
  const auto total = static_cast<double>(CountSupervised(both));
  std::vector<int32_t> active;
  const auto gradients = [&](const std::vector<const TokenBatch*>& batches) {
    EXPECT_TRUE((*method)->BeginStep(0, &active).ok());
    for (const TokenBatch* batch : batches) {
      MicroContext c{.step = 0, .micro = 0, .seed = 0, .grad_scale = 1 / total};
      EXPECT_TRUE((*method)->Micro(*batch, c).ok());
    }
    std::vector<float> out;
    for (const model::Parameter& p : (*method)->params()) {
      out.insert(out.end(), p.grad, p.grad + p.count);
    }
    return out;
  };
  const std::vector<float> one = gradients({&both}), two = gradients({&a, &b});
  double difference = 0, norm = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    difference += std::pow(one[i] - two[i], 2);
    norm += std::pow(one[i], 2);
  }
  ASSERT_GT(norm, 0);
  // Sums of 96 rows through 3 layers, regrouped: of the order of sqrt(96) eps of their norm.
  EXPECT_LE(std::sqrt(difference), 32 * 6e-8 * std::sqrt(norm));
}

TEST_F(ModelMethodTest, MemoryIsPredictedAndRefusalSaysWhatFits) {
  auto ctx = ExecContext::Create({.threads = 1});
  auto model = TinyModel();
  MemoryRequest request{.method = method_, .max_tokens = 48, .runtime_bytes = 1000};
  auto estimate = EstimateMemory(**ctx, *model, request);
  ASSERT_TRUE(estimate.ok()) << estimate.status().message();
  auto method = ModelMethod::Create(**ctx, *model, method_, 48);
  int64_t trained = 0;
  for (const model::Parameter& p : (*method)->params()) trained += p.count;
  EXPECT_EQ(estimate->weights, model->weight_bytes());
  EXPECT_EQ(estimate->trainable, trained * 4);
  EXPECT_EQ(estimate->optimizer, trained * 8);
  EXPECT_EQ(estimate->activations, (*method)->MemoryNeeded().activations);
  EXPECT_TRUE(CheckMemory(**ctx, *model, request, estimate->total()).ok());
  const Status refused = CheckMemory(**ctx, *model, request, estimate->total() - 1);
  EXPECT_EQ(refused.code(), StatusCode::kOutOfMemory);
  EXPECT_NE(refused.message().find("recompute activations"), std::string::npos)
      << refused.message();
  EXPECT_NE(CheckMemory(**ctx, *model, request, 1).message().find("smallest"), std::string::npos);
}

TEST_F(ModelMethodTest, WhatDoesNotFitIsRecomputedAndElseRefused) {
  auto ctx = ExecContext::Create({.threads = 1});
  auto model = TinyModel();
  for (MethodKind kind : {MethodKind::kLora, MethodKind::kFull}) {
    method_.kind = kind;
    MemoryRequest request{.method = method_, .max_tokens = 600, .runtime_bytes = 1000};
    // From everything kept to the least of it, in the smallest pieces.
    std::vector<std::pair<RecomputeForm, int64_t>> forms;
    for (const RecomputeForm& form : FormsToTry(request)) {
      MemoryRequest r = request;
      r.method.recompute = form.recompute;
      r.method.mlp_rows = form.mlp_rows;
      forms.emplace_back(form, EstimateMemory(**ctx, *model, r)->total());
    }
    ASSERT_EQ(forms.size(), 5u);
    EXPECT_EQ(forms.front().first.recompute, plan::Recompute::kNone);
    EXPECT_EQ(forms.back().first.recompute, plan::Recompute::kLayer);
    EXPECT_EQ(forms.back().first.mlp_rows, model::kLeastMlpRows);
    int64_t least = forms.front().second;
    for (const auto& [form, bytes] : forms) {
      if (bytes >= least && form.recompute != plan::Recompute::kNone) continue;
      least = bytes;
      const auto fit = FitMapped(**ctx, *model, request, bytes);
      ASSERT_TRUE(fit.ok()) << fit.status().message();
      EXPECT_EQ(fit->recompute, form.recompute);
      EXPECT_EQ(fit->mlp_rows, form.mlp_rows);
      EXPECT_EQ(fit->estimate.total(), bytes);
    }
    EXPECT_EQ(least, forms.back().second);
    EXPECT_EQ(FitMapped(**ctx, *model, request, 0)->recompute, plan::Recompute::kNone);
    int64_t smallest = 0;
    const auto refused = FitMapped(**ctx, *model, request, least - 1, &smallest);
    EXPECT_EQ(refused.status().code(), StatusCode::kOutOfMemory);
    EXPECT_NE(refused.status().message().find("--memory"), std::string::npos);
    EXPECT_TRUE(FitMapped(**ctx, *model, request, smallest).ok());
  }
}

TEST_F(ModelMethodTest, BadOptionsAreErrors) {
  auto ctx = ExecContext::Create({.threads = 1});
  auto model = TinyModel();
  method_.kind = MethodKind::kLastN;
  method_.last_layers = 0;
  EXPECT_FALSE(ModelMethod::Create(**ctx, *model, method_, 48).ok());
  EXPECT_FALSE(ModelMethod::Create(**ctx, *model, {}, 0).ok());
  EXPECT_FALSE(ParseMethod("qlora").ok());
}

}  // namespace
}  // namespace edgewise::tune
