// Two models in files, compared layer by layer.
#include "infer/logit_error.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "formats/hf_dir.h"
#include "model/decoder.h"
#include "model/save.h"
#include "testing/tiny_models.h"

namespace edgewise::infer {
namespace {

using model::WeightId;
using model::WeightRole;

class LogitErrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ctx_ = std::move(*ExecContext::Create({.threads = 2}));
    root_ = ::testing::TempDir() + "/logit_error_" + std::to_string(::getpid());
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string Save(const std::string& name, const model::Model& model, DType dtype) {
    const std::string dir = root_ + "/" + name;
    const Status status = model::SaveHfModel(PosixEnv(), model, dtype,
                                             model::ConfigToHf(model.config(), dtype), {}, dir);
    EXPECT_TRUE(status.ok()) << status.message();
    return dir;
  }
  double Error(const ProbedModel& want, const ProbedModel& got) {
    const Result<double> error = LogitError(*ctx_, want, got);
    EXPECT_TRUE(error.ok()) << error.status().message();
    return error.ok() ? *error : -1;
  }

  std::unique_ptr<ExecContext> ctx_;
  std::string root_;
};

// The tiny models under the names of architectures that have their flags.
std::vector<testing::TinyModel> Models() {
  const char* names[][2] = {{"LlamaForCausalLM", "llama"},
                            {"LlamaForCausalLM", "llama"},
                            {"MistralForCausalLM", "mistral"},
                            {"Qwen3ForCausalLM", "qwen3"},
                            {"Gemma3ForCausalLM", "gemma3_text"}};
  std::vector<testing::TinyModel> models = testing::TinyModels();
  for (size_t i = 0; i < models.size(); ++i) {
    models[i].config.architecture = names[i][0];
    models[i].config.model_type = names[i][1];
  }
  return models;
}

TEST_F(LogitErrorTest, IsWhatDecodersDifferBy) {
  for (const auto& [name, config] : Models()) {
    SCOPED_TRACE(name);
    const auto model = testing::MakeTinyModel(config);
    const std::string exact = Save(name + "-f32", *model, DType::kF32);
    const std::string rounded = Save(name + "-bf16", *model, DType::kBF16);
    EXPECT_EQ(Error({exact}, {exact}), 0);
    // The same by decoders that hold their models whole.
    const auto left = model::Model::Load(exact), right = model::Model::Load(rounded);
    ASSERT_TRUE(left.ok() && right.ok());
    const int64_t positions = std::min(kProbeTokens, config.max_positions);
    const model::DecoderOptions options{.max_context = positions};
    const auto a = model::Decoder::Create(*ctx_, **left, options);
    const auto b = model::Decoder::Create(*ctx_, **right, options);
    ASSERT_TRUE(a.ok() && b.ok());
    Rng rng(0, RngStream::kCalibration);
    double difference = 0, size = 0;
    for (int64_t i = 0; i < positions; ++i) {
      const auto token = static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(config.vocab)));
      const auto want = (*a)->Step(token), got = (*b)->Step(token);
      ASSERT_TRUE(want.ok() && got.ok());
      for (size_t v = 0; v < want->size(); ++v) {
        difference = std::max(difference, std::fabs(double{(*want)[v]} - (*got)[v]));
        size = std::max(size, std::fabs(double{(*want)[v]}));
      }
    }
    // Sums in another order: some roundings of the logits.
    EXPECT_GT(difference, 0);
    EXPECT_NEAR(Error({exact}, {rounded}), difference / size, 1e-5);
  }
}

TEST_F(LogitErrorTest, CountsAdaptersAndHeads) {
  const auto config = testing::TinyLlama();
  const auto model = testing::MakeTinyModel(config);
  const std::string base = Save("base", *model, DType::kF32);
  model::LoraConfig lora;
  lora.r = 3;
  lora.targets = model::LoraConfig::Targets::kAllLinear;
  auto adapter = model::LoraAdapter::Create(config, lora, 5);
  ASSERT_TRUE(adapter.ok());
  Rng rng(5, RngStream::kTest);
  for (float& v : adapter->values().span()) v = static_cast<float>(0.2 * rng.NextNormal());
  EXPECT_GT(Error({.path = base, .lora = &*adapter}, {base}), 1e-2);
  // From the last layer on: another model than with all, and than without.
  const ProbedModel last{.path = base, .lora = &*adapter, .lora_begin = config.num_layers() - 1};
  EXPECT_GT(Error(last, {.path = base, .lora = &*adapter}), 1e-3);
  EXPECT_GT(Error(last, {base}), 1e-3);
  EXPECT_GT(Error({.path = base, .layers = 1}, {base}), 1e-3);
  // Norm and head as the model has them change nothing.
  model::ExitHead head;
  head.norm = model->weights().final_norm;
  head.head = &model->weights().head;
  EXPECT_EQ(Error({.path = base, .head = head}, {base}), 0);
  FloatBuffer a(2 * config.hidden), b(config.vocab * 2);
  for (float& v : a.span()) v = static_cast<float>(rng.NextNormal());
  for (float& v : b.span()) v = static_cast<float>(rng.NextNormal());
  model::ExitHead adapted;
  adapted.lora_r = 2;
  adapted.lora_scale = 0.5f;
  adapted.lora_a = a.data();
  adapted.lora_b = b.data();
  EXPECT_GT(Error({.path = base, .head = adapted}, {base}), 1e-2);
}

TEST_F(LogitErrorTest, RefusesWhatIsNoNumber) {
  const auto config = testing::TinyLlama();
  const auto model = testing::MakeTinyModel(config);
  const std::string base = Save("base", *model, DType::kF32);
  model->MutableData({WeightRole::kLinear, 0, model::LinearKind::kUp})[0] =
      std::numeric_limits<float>::quiet_NaN();
  const std::string broken = Save("broken", *model, DType::kF32);
  EXPECT_EQ(LogitError(*ctx_, {base}, {broken}).status().code(), StatusCode::kBadInput);
  EXPECT_FALSE(LogitError(*ctx_, {base}, {root_ + "/nothing"}).ok());
}

}  // namespace
}  // namespace edgewise::infer
