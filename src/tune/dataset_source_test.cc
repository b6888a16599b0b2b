#include "tune/dataset_source.h"

#include <gtest/gtest.h>

namespace edgewise::tune {
namespace {

std::vector<data::Example> Examples(int n) {
  std::vector<data::Example> out;
  for (int i = 0; i < n; ++i) {
    std::vector<int32_t> ids;
    for (int t = 0; t < 3 + i % 4; ++t) ids.push_back(10 * i + t);
    out.push_back(data::MakeExample(ids, std::vector<uint8_t>(ids.size(), 1)));
  }
  return out;
}

std::string Print(int n, data::Packing packing, int64_t tokens, data::BatchPlanOptions options) {
  auto source = DatasetSource::Create(Examples(n), packing, tokens, options);
  EXPECT_TRUE(source.ok()) << source.status().message();
  return (*source)->fingerprint();
}

TEST(DatasetSource, EveryExampleOncePerPassAndTheSameWhenAskedAgain) {
  auto source = DatasetSource::Create(Examples(11), data::Packing::kBestFit, 16,
                                      {.batch_size = 2, .grad_accum = 1, .shuffle = true});
  ASSERT_TRUE(source.ok()) << source.status().message();
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    int64_t tokens = 0;
    for (int64_t i = 0; i < (*source)->batches_per_epoch(); ++i) {
      const TokenBatch batch = *(*source)->Get(epoch, i);
      EXPECT_LE(batch.size(), (*source)->max_tokens());
      EXPECT_GT(CountSupervised(batch), 0);
      EXPECT_EQ(batch.ids, (*source)->Get(epoch, i)->ids);
      tokens += batch.size();
    }
    int64_t expected = 0;
    for (const auto& e : Examples(11)) expected += static_cast<int64_t>(e.ids.size());
    EXPECT_EQ(tokens, expected);
  }
}

TEST(DatasetSource, FingerprintSeesWhatDecidesTheBatches) {
  const data::BatchPlanOptions o;
  const std::string base = Print(6, data::Packing::kBestFit, 16, o);
  EXPECT_EQ(Print(6, data::Packing::kBestFit, 16, o), base);
  EXPECT_NE(Print(5, data::Packing::kBestFit, 16, o), base);
  EXPECT_NE(Print(6, data::Packing::kNone, 16, o), base);
  EXPECT_NE(Print(6, data::Packing::kBestFit, 17, o), base);
  data::BatchPlanOptions other = o;
  other.seed = 7;
  EXPECT_NE(Print(6, data::Packing::kBestFit, 16, other), base);
  EXPECT_FALSE(DatasetSource::Create({}, data::Packing::kNone, 16, o).ok());
}

}  // namespace
}  // namespace edgewise::tune
