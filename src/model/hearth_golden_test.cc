// A real pretrained model on real prompts: logits, last hidden state and greedy tokens as
// transformers computes them, and the same model from GGUF files.
#include <gtest/gtest.h>

#include <filesystem>

#include "model/decoder.h"
#include "model/training_pass.h"
#include "testing/golden.h"
#include "testing/model_support.h"
#include "testing/paths.h"

namespace edgewise::model {
namespace {

using testing::ReadGolden;

constexpr int kPrompts = 5;

TEST(Hearth, LogitsHiddenStateAndGreedyTokens) {
  const std::string golden_dir = testing::GoldenDir() + "/hearth";
  const std::string model_dir = testing::DataDir() + "/models/hearth-10m";
  EW_REQUIRE_DIR(golden_dir);
  EW_REQUIRE_DIR(model_dir);
  const auto golden = testing::OpenGolden(golden_dir + "/prompts.safetensors");
  const auto ctx = testing::MakeContext();
  auto model = Model::Load(model_dir, {StorageDType::kAsStored, /*check_finite=*/true});
  ASSERT_TRUE(model.ok()) << model.status().message();
  const ModelConfig& c = (*model)->config();

  for (int i = 0; i < kPrompts; ++i) {
    const std::string prefix = std::to_string(i) + ".";
    SCOPED_TRACE(prefix);
    const auto ids = ReadGolden<int64_t>(golden, prefix + "ids");
    const auto logits = ReadGolden<float>(golden, prefix + "logits");
    const auto hidden = ReadGolden<float>(golden, prefix + "hidden.last");
    const auto n = static_cast<int64_t>(ids.size());
    TrainingPass pass(*ctx, **model, n);
    PassOptions options;
    std::vector<float> last(hidden.size()), normed(hidden.size()), ours(logits.size());
    options.observe = [&](int64_t done, const float* h) {
      if (done == c.num_layers()) std::copy_n(h, last.size(), last.data());
      if (done == -1) std::copy_n(h, normed.size(), normed.data());
    };
    ASSERT_TRUE(pass.Run(testing::PackRows(ids, {}, n), options).ok());
    ASSERT_TRUE(pass.Logits(n, last.data(), ours.data()).ok());
    // The references are fp32: both sides round.
    const double relative = 2 * testing::Fp32Tolerance(c, c.num_layers(), 1.0);
    EXPECT_LE(testing::MaxDifference(normed.data(), hidden), relative * testing::LargestOf(hidden));
    EXPECT_LE(testing::MaxDifference(ours.data(), logits), relative * testing::LargestOf(logits));

    const auto greedy = ReadGolden<int64_t>(golden, prefix + "greedy");
    auto decoder = Decoder::Create(*ctx, **model);
    ASSERT_TRUE(decoder.ok()) << decoder.status().message();
    auto next = (*decoder)->Prefill(std::vector<int32_t>(ids.begin(), ids.end()));
    for (int64_t expected : greedy) {
      ASSERT_TRUE(next.ok());
      ASSERT_EQ(std::max_element(next->begin(), next->end()) - next->begin(), expected);
      next = (*decoder)->Step(static_cast<int32_t>(expected));
    }
  }
}

TEST(Hearth, GgufFilesAreTheSameModel) {
  const std::string model_dir = testing::DataDir() + "/models/hearth-10m";
  EW_REQUIRE_DIR(model_dir + "/gguf");
  const auto ctx = testing::MakeContext();
  auto model = Model::Load(model_dir);
  ASSERT_TRUE(model.ok()) << model.status().message();
  const ModelConfig& c = (*model)->config();
  const std::vector<int32_t> ids = {12, 345, 678, 910, 77, 1234, 4000, 5};
  auto logits_of = [&](const Model& m) {
    auto decoder = Decoder::Create(*ctx, m);
    EXPECT_TRUE(decoder.ok());
    const auto logits = (*decoder)->Prefill(ids);
    return std::vector<float>(logits->begin(), logits->end());
  };
  const std::vector<float> exact = logits_of(**model);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(model_dir + "/gguf")) {
    if (entry.path().extension() != ".gguf") continue;
    ++files;
    const std::string name = entry.path().filename().string();
    SCOPED_TRACE(name);
    auto gguf = Model::Load(entry.path().string());
    ASSERT_TRUE(gguf.ok()) << gguf.status().message();
    EXPECT_EQ((*gguf)->config().head_dim, c.head_dim);
    EXPECT_EQ((*gguf)->config().vocab, c.vocab);
    const double difference = testing::RelativeL2(logits_of(**gguf).data(), exact);
    RecordProperty(name, std::to_string(difference));
    const bool f16 = name.find("16") != std::string::npos;
    // The weights are fp16: that file loses nothing. 8 bits lose about 2^-8 of each weight, 4 bits
    // 2^-4, which 7 sums a layer pass on.
    const double unit = name.find("8") != std::string::npos ? 0x1.0p-8 : 0x1.0p-4;
    EXPECT_LE(difference, f16 ? testing::Fp32Tolerance(c, c.num_layers(), 1.0)
                              : unit * std::sqrt(7.0 * static_cast<double>(c.num_layers())));
  }
  EXPECT_GT(files, 0);
}

}  // namespace
}  // namespace edgewise::model
