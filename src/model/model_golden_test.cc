// Every reference model: hidden states, logits, losses and greedy tokens as Hugging Face
// transformers computes them (float64 where the references have it).
#include <gtest/gtest.h>

#include <filesystem>

#include "io/json.h"
#include "model/decoder.h"
#include "model/training_pass.h"
#include "testing/golden.h"
#include "testing/model_support.h"
#include "testing/paths.h"

namespace edgewise::model {
namespace {

using testing::CountTargets;
using testing::Fp32Tolerance;
using testing::LargestOf;
using testing::MaxDifference;
using testing::OpenGolden;
using testing::ReadGolden;

struct Case {
  std::string name;    // directory or file under models/
  std::string golden;  // golden.safetensors under models/
};

std::vector<Case> Cases() {
  const auto index = ReadJsonFile(testing::GoldenDir() + "/models/index.json");
  std::vector<Case> cases;
  if (!index.ok()) return cases;
  for (const Json& m : (*index)["models"]) cases.push_back({m["dir"], m["golden"]});
  for (const Json& g : (*index)["gguf"]) cases.push_back({g["file"], g["golden"]});
  return cases;
}

class GoldenModel : public ::testing::TestWithParam<Case> {
 protected:
  std::string Root() const { return testing::GoldenDir() + "/models/"; }

  void SetUp() override {
    golden_ = OpenGolden(Root() + GetParam().golden);
    auto model = Model::Load(Root() + GetParam().name);
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = std::move(*model);
    ids_ = ReadGolden<int64_t>(golden_, "input_ids");
    labels_ = ReadGolden<int64_t>(golden_, "labels");
    length_ = static_cast<int64_t>(ids_.size()) / 2;
    hidden_.resize(ids_.size() * static_cast<size_t>(model_->config().hidden));
  }

  double Tolerance(double largest) const {
    return Fp32Tolerance(model_->config(), model_->config().num_layers(), largest);
  }

  // Logits of both rows.
  std::vector<float> Logits(const Model& model, const PassOptions& base = {}) {
    TrainingPass pass(*ctx_, model, 2 * length_);
    PassOptions options = base;
    options.observe = [&](int64_t done, const float* h) {
      if (done == model.config().num_layers()) std::copy_n(h, hidden_.size(), hidden_.data());
      if (base.observe) base.observe(done, h);
    };
    const auto loss = pass.Run(testing::PackRows(ids_, labels_, length_), options);
    EXPECT_TRUE(loss.ok()) << loss.status().message();
    if (loss.ok()) loss_ = *loss;
    std::vector<float> logits(ids_.size() * static_cast<size_t>(model.config().vocab));
    const Status status = pass.Logits(2 * length_, hidden_.data(), logits.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return logits;
  }

  std::unique_ptr<ExecContext> ctx_ = testing::MakeContext(1);
  testing::GoldenFile golden_;
  std::unique_ptr<Model> model_;
  std::vector<int64_t> ids_, labels_;
  int64_t length_ = 0;
  std::vector<float> hidden_;
  kernels::HeadLossResult loss_;
};

TEST_P(GoldenModel, HiddenStates) {
  PassOptions options;
  int seen = 0;
  options.observe = [&](int64_t done, const float* h) {
    std::string name = "hidden.norm";
    if (done == 0) name = "hidden.embed";
    if (done > 0) name = "hidden.layer." + std::to_string(done - 1);
    const auto expected = ReadGolden<float>(golden_, name);
    // The reference is fp32 itself: its error counts too.
    EXPECT_LE(MaxDifference(h, expected), 2 * Tolerance(LargestOf(expected))) << name;
    ++seen;
  };
  Logits(*model_, options);
  EXPECT_EQ(seen, model_->config().num_layers() + 2);
}

TEST_P(GoldenModel, LogitsAndLoss) {
  const std::vector<float> logits = Logits(*model_);
  const auto exact = ReadGolden<double>(golden_, "logits_f64");
  const double tolerance = Tolerance(LargestOf(exact));
  const double worst = MaxDifference(logits.data(), exact);
  EXPECT_LE(worst, tolerance);
  RecordProperty("logits_max_difference", std::to_string(worst));
  EXPECT_LE(MaxDifference(logits.data(), ReadGolden<float>(golden_, "logits")), 2 * tolerance);

  const double loss = loss_.loss_sum / static_cast<double>(loss_.labelled);
  EXPECT_NEAR(loss, ReadGolden<double>(golden_, "loss_f64")[0], tolerance);

  // token_loss ignores the labels: every next token counts.
  TrainingPass pass(*ctx_, *model_, 2 * length_);
  PassOptions options;
  std::vector<float> losses(ids_.size());
  options.token_loss = losses.data();
  const TokenBatch all = testing::PackRows(ids_, {}, length_);
  ASSERT_TRUE(pass.Run(all, options).ok());
  const auto expected = ReadGolden<float>(golden_, "token_loss");
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t t = 0; t + 1 < length_; ++t) {
      EXPECT_NEAR(losses[static_cast<size_t>(row * length_ + t)],
                  expected[static_cast<size_t>(row * (length_ - 1) + t)], 2 * tolerance);
    }
  }
}

TEST_P(GoldenModel, GreedyTokensFromTheCache) {
  if (golden_->Find("greedy.tokens") == nullptr) GTEST_SKIP() << "no greedy tokens";
  const auto prompt = ReadGolden<int64_t>(golden_, "greedy.prompt");
  const auto expected = ReadGolden<int64_t>(golden_, "greedy.tokens");
  for (int64_t chunk : {5, 64}) {
    DecoderOptions options;
    options.prefill_chunk = chunk;
    auto decoder = Decoder::Create(*ctx_, *model_, options);
    ASSERT_TRUE(decoder.ok()) << decoder.status().message();
    auto logits = (*decoder)->Prefill(std::vector<int32_t>(prompt.begin(), prompt.end()));
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_TRUE(logits.ok()) << logits.status().message();
      const auto best = std::max_element(logits->begin(), logits->end()) - logits->begin();
      EXPECT_EQ(best, expected[i]) << "token " << i;
      logits = (*decoder)->Step(static_cast<int32_t>(expected[i]));
    }
  }
}

TEST_P(GoldenModel, OlderConfigGivesTheSameModel) {
  const std::string dir = Root() + GetParam().name;
  if (!std::filesystem::exists(dir + "/config.v4.json")) GTEST_SKIP() << "one form only";
  const std::string copy = ::testing::TempDir() + "/v4_" + GetParam().name;
  std::filesystem::remove_all(copy);
  std::filesystem::create_directories(copy);
  std::filesystem::copy(dir + "/model.safetensors", copy + "/model.safetensors");
  std::filesystem::copy(dir + "/config.v4.json", copy + "/config.json");
  auto older = Model::Load(copy);
  ASSERT_TRUE(older.ok()) << older.status().message();
  EXPECT_EQ(Logits(**older), Logits(*model_));
  std::filesystem::remove_all(copy);
}

TEST_P(GoldenModel, StorageTypesHoldWhatTheySay) {
  const auto exact = ReadGolden<double>(golden_, "logits_f64");
  for (StorageDType storage : {StorageDType::kF32, StorageDType::kBF16, StorageDType::kF16}) {
    auto model = Model::Load(Root() + GetParam().name, {storage, /*check_finite=*/true});
    ASSERT_TRUE(model.ok()) << model.status().message();
    const std::vector<float> logits = Logits(**model);
    // A 16-bit type rounds each weight by at most 2^-8 (bf16) or 2^-11 (fp16) of its size.
    double unit = 0;
    if (storage == StorageDType::kBF16) unit = 0x1.0p-8;
    if (storage == StorageDType::kF16) unit = 0x1.0p-11;
    const double rounding =
        unit * std::sqrt(7.0 * static_cast<double>(model_->config().num_layers()));
    EXPECT_LE(MaxDifference(logits.data(), exact),
              Tolerance(LargestOf(exact)) + 2 * rounding * LargestOf(exact));
  }
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.name;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, GoldenModel, ::testing::ValuesIn(Cases()), CaseName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenModel);

TEST(GoldenModels, AreThere) {
  EW_REQUIRE_DIR(testing::GoldenDir() + "/models");
  EXPECT_FALSE(Cases().empty());
}

}  // namespace
}  // namespace edgewise::model
