#include "model/decoder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

#include "model/training_pass.h"
#include "testing/model_support.h"
#include "testing/tiny_models.h"

// Counts what the whole test program takes from the heap.
namespace {
std::atomic<int64_t> allocations{0};
}  // namespace
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace edgewise::model {
namespace {

using testing::MakeContext;
using testing::MakeTinyModel;
using testing::TinyModel;

class Decoding : public ::testing::TestWithParam<TinyModel> {
 protected:
  const ModelConfig& c() const { return GetParam().config; }

  void SetUp() override {
    LoraConfig lora;
    lora.r = 3;
    lora.targets = LoraConfig::Targets::kAllLinear;
    auto adapter = LoraAdapter::Create(c(), lora, 5);
    ASSERT_TRUE(adapter.ok());
    adapter_.emplace(std::move(*adapter));
    Rng rng(5, RngStream::kTest);
    for (float& v : adapter_->values().span()) v = static_cast<float>(0.3 * rng.NextNormal());
    batch_ = testing::RandomDocuments({40}, c().vocab);

    // Logits of every row from one uncached pass.
    TrainingPass pass(*ctx_, *model_, 40);
    PassOptions options;
    options.lora = &*adapter_;
    std::vector<float> hidden(static_cast<size_t>(40 * c().hidden));
    options.observe = [&](int64_t done, const float* h) {
      if (done == c().num_layers()) std::copy_n(h, hidden.size(), hidden.data());
    };
    ASSERT_TRUE(pass.Run(batch_, options).ok());
    expected_.resize(static_cast<size_t>(40 * c().vocab));
    ASSERT_TRUE(pass.Logits(40, hidden.data(), expected_.data()).ok());
  }

  std::vector<float> ExpectedRow(int64_t row) const {
    const auto at = expected_.begin() + row * c().vocab;
    return {at, at + c().vocab};
  }
  std::unique_ptr<Decoder> MakeDecoder(DecoderOptions options) {
    auto decoder = Decoder::Create(*ctx_, *model_, options, &*adapter_);
    EXPECT_TRUE(decoder.ok()) << decoder.status().message();
    return std::move(*decoder);
  }

  std::unique_ptr<ExecContext> ctx_ = MakeContext(1);
  std::unique_ptr<Model> model_ = MakeTinyModel(GetParam().config);
  std::optional<LoraAdapter> adapter_;
  TokenBatch batch_;
  std::vector<float> expected_;
};

TEST_P(Decoding, RowsAreThoseOfOnePass) {
  for (KvForm form : {KvForm::kF32, KvForm::kF16}) {
    // fp16 rounds keys and values by up to 2^-11 of their size. A key moves its score, up to about
    // 5 here, by that share, and the softmax passes it on.
    const double unit = form == KvForm::kF32 ? 0 : 0x1.0p-11;
    const double tolerance =
        (testing::Fp32Tolerance(c(), c().num_layers(), 1.0) +
         unit * std::sqrt(7.0 * static_cast<double>(c().num_layers())) * (1 + 5)) *
        testing::LargestOf(expected_);
    for (int64_t chunk : {1, 7, 64}) {
      auto decoder = MakeDecoder({48, chunk, form});
      auto logits = decoder->Prefill({batch_.ids.data(), 20});
      ASSERT_TRUE(logits.ok()) << logits.status().message();
      EXPECT_LE(testing::MaxDifference(logits->data(), ExpectedRow(19)), tolerance);
      for (int64_t t = 20; t < 40; ++t) {
        logits = decoder->Step(batch_.ids[static_cast<size_t>(t)]);
        ASSERT_TRUE(logits.ok()) << logits.status().message();
        EXPECT_LE(testing::MaxDifference(logits->data(), ExpectedRow(t)), tolerance);
      }
      EXPECT_EQ(decoder->length(), 40);
    }
  }
}

TEST_P(Decoding, TruncationForgets) {
  auto decoder = MakeDecoder({48, 16});
  ASSERT_TRUE(decoder->Prefill({batch_.ids.data(), 20}).ok());
  auto first = decoder->Step(batch_.ids[20]);
  ASSERT_TRUE(first.ok());
  const std::vector<float> saved(first->begin(), first->end());
  ASSERT_TRUE(decoder->Step(3).ok());
  decoder->Truncate(20);
  auto second = decoder->Step(batch_.ids[20]);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(saved, std::vector<float>(second->begin(), second->end()));
}

TEST_P(Decoding, StacksMakeTheWhole) {
  // Two devices, each with its own layers and cache.
  LayerStackOptions options;
  options.max_rows = 40;
  options.max_context = 48;
  options.lora = &*adapter_;
  auto low = LayerStack::Create(*ctx_, *model_, {0, 2}, options);
  auto high = LayerStack::Create(*ctx_, *model_, {2, 3}, options);
  auto low_cache = KvCache::Create(c(), {0, 2}, 48);
  auto high_cache = KvCache::Create(c(), {2, 3}, 48);
  ASSERT_TRUE(low.ok() && high.ok() && low_cache.ok() && high_cache.ok());
  TrainingPass pass(*ctx_, *model_, 40);
  std::vector<float> hidden(static_cast<size_t>(40 * c().hidden));
  ASSERT_TRUE(pass.Embed(batch_, hidden.data()).ok());
  ASSERT_TRUE(low->Forward(*low_cache, 40, hidden.data()).ok());
  ASSERT_TRUE(high->Forward(*high_cache, 40, hidden.data()).ok());
  std::vector<float> logits(expected_.size());
  ASSERT_TRUE(pass.Logits(40, hidden.data(), logits.data()).ok());
  EXPECT_LE(testing::MaxDifference(logits.data(), expected_),
            testing::Fp32Tolerance(c(), c().num_layers(), testing::LargestOf(expected_)));
}

INSTANTIATE_TEST_SUITE_P(Tiny, Decoding, ::testing::ValuesIn(testing::TinyModels()),
                         [](const auto& i) { return i.param.name; });

TEST(Decoder, StepsWithoutAllocating) {
  for (const TinyModel& tiny : testing::TinyModels()) {
    for (KvForm form : {KvForm::kF32, KvForm::kF16, KvForm::kInt8, KvForm::kInt4}) {
      SCOPED_TRACE(tiny.name);
      const auto ctx = MakeContext(2);
      const auto model = MakeTinyModel(tiny.config);
      auto decoder = Decoder::Create(*ctx, *model, {32, 8, form});
      ASSERT_TRUE(decoder.ok());
      const std::vector<int32_t> prompt(8, 1);
      ASSERT_TRUE((*decoder)->Prefill(prompt).ok());
      ASSERT_TRUE((*decoder)->Step(1).ok());
      const int64_t before = allocations;
      for (int32_t t = 0; t < 20; ++t) ASSERT_TRUE((*decoder)->Step(t).ok());
      EXPECT_EQ(allocations - before, 0);
    }
  }
}

// A key or value of a head is off by half a step: 1/254 of the head's largest magnitude (int8),
// 1/30 of its range (int4), 2^-11 of itself (fp16). How that reaches the logits depends on the
// model; what is asked here is the order of magnitude, and that all of it stays in the cache.
TEST(Decoder, RoundedCachesStayClose) {
  for (const TinyModel& tiny : testing::TinyModels()) {
    const auto ctx = MakeContext(2);
    const auto model = MakeTinyModel(tiny.config);
    std::vector<int32_t> prompt(24);
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 7 % 30);
    std::vector<float> exact;
    int64_t exact_bytes = 0;
    for (KvForm form : {KvForm::kF32, KvForm::kF16, KvForm::kInt8, KvForm::kInt4}) {
      SCOPED_TRACE(tiny.name + std::string(" ") + std::string(KvFormName(form)));
      EXPECT_EQ(ParseKvForm(KvFormName(form)).value(), form);
      auto decoder = Decoder::Create(*ctx, *model, {48, 8, form});
      ASSERT_TRUE(decoder.ok());
      ASSERT_TRUE((*decoder)->Prefill(prompt).ok());
      std::vector<float> logits;
      for (int32_t t = 0; t < 8; ++t) {
        const auto step = (*decoder)->Step(t);
        ASSERT_TRUE(step.ok());
        logits.insert(logits.end(), step->begin(), step->end());
      }
      if (form == KvForm::kF32) {
        exact = logits;
        exact_bytes = (*decoder)->kv_bytes();
        continue;
      }
      double error = 0, norm = 0;
      for (size_t i = 0; i < exact.size(); ++i) {
        error += std::pow(static_cast<double>(logits[i]) - exact[i], 2);
        norm += std::pow(static_cast<double>(exact[i]), 2);
      }
      const double limit = form == KvForm::kF16 ? 0.002 : form == KvForm::kInt8 ? 0.03 : 0.3;
      EXPECT_LT(std::sqrt(error / norm), limit);
      EXPECT_GT(error, 0);
      EXPECT_LE((*decoder)->kv_bytes() * 2, exact_bytes);
    }
  }
  EXPECT_FALSE(ParseKvForm("fp8").ok());
  EXPECT_EQ(ParseKvForm("q8_0").value(), KvForm::kInt8);
}

TEST(Decoder, ExplainsErrors) {
  const auto ctx = MakeContext(1);
  const auto model = MakeTinyModel(testing::TinyLlama());
  auto decoder = Decoder::Create(*ctx, *model, {8, 4});
  ASSERT_TRUE(decoder.ok());
  EXPECT_FALSE((*decoder)->Prefill({}).ok());
  EXPECT_FALSE((*decoder)->Step(37).ok());
  EXPECT_FALSE((*decoder)->Step(-1).ok());
  EXPECT_EQ((*decoder)->length(), 0);
  const std::vector<int32_t> nine(9, 1);
  EXPECT_FALSE((*decoder)->Prefill(nine).ok());
  ASSERT_TRUE((*decoder)->Prefill({nine.data(), 8}).ok());
  EXPECT_FALSE((*decoder)->Step(1).ok());

  // A context that no machine holds is an error, not a crash.
  DecoderOptions huge;
  huge.max_context = int64_t{1} << 60;
  EXPECT_FALSE(Decoder::Create(*ctx, *model, huge).ok());
  huge.max_context = (int64_t{1} << 31) - 1;
  huge.kv_form = KvForm::kInt8;
  EXPECT_FALSE(Decoder::Create(*ctx, *model, huge).ok());
}

}  // namespace
}  // namespace edgewise::model
