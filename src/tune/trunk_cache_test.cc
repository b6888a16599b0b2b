#include "tune/trunk_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/rng.h"

namespace edgewise::tune {
namespace {

constexpr int64_t kHidden = 100;  // not a multiple of the codec's group

std::vector<float> RandomState(uint64_t seed, int64_t tokens) {
  Rng rng(seed, RngStream::kTest);
  std::vector<float> h(static_cast<size_t>(tokens * kHidden));
  for (float& x : h) x = static_cast<float>(rng.NextNormal());
  for (int64_t t = 0; t < tokens; ++t) h[static_cast<size_t>(t * kHidden + 7)] *= 300;  // outlier
  return h;
}

class TrunkCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "trunk-" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::unique_ptr<TrunkCache> Open(int64_t max_bytes = 0) {
    auto cache = TrunkCache::Open(path_, key_, tokens_, max_bytes);
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    return std::move(*cache);
  }

  std::string path_;
  TrunkCacheKey key_{1, 2, kHidden, HiddenCodec::kBF16, {3, 6, 9}};
  std::vector<int64_t> tokens_ = {5, 1, 17, 8};
};

TEST_F(TrunkCacheTest, ReturnsWhatWasPutAfterReopening) {
  const auto h = RandomState(1, 17);
  {
    auto cache = Open();
    EXPECT_FALSE(cache->continued());
    EXPECT_FALSE(cache->Has(2, 1));
    ASSERT_TRUE(cache->Put(2, 1, h.data()).ok());
  }
  auto cache = Open();
  EXPECT_TRUE(cache->continued());
  std::vector<float> got(h.size());
  ASSERT_TRUE(*cache->Get(2, 1, got.data()));
  for (size_t i = 0; i < h.size(); ++i)
    EXPECT_LE(std::abs(got[i] - h[i]), std::abs(h[i]) * 0x1p-8f);
  EXPECT_FALSE(*cache->Get(2, 0, got.data()));
  ASSERT_TRUE(cache->Invalidate(1).ok());
  EXPECT_FALSE(Open()->Has(2, 1));
}

TEST_F(TrunkCacheTest, AnotherKeyStartsAnew) {
  const auto h = RandomState(1, 5);
  ASSERT_TRUE(Open()->Put(0, 0, h.data()).ok());
  key_.base_hash = 9;
  auto cache = Open();
  EXPECT_FALSE(cache->continued());
  EXPECT_FALSE(cache->Has(0, 0));
}

TEST_F(TrunkCacheTest, ADiskWithoutRoomIsRefusedAtOnce) {
  tokens_ = {int64_t{1} << 50, 3};
  const auto cache = TrunkCache::Open(path_, key_, tokens_, 0);
  ASSERT_EQ(cache.status().code(), StatusCode::kIo);
  EXPECT_NE(cache.status().message().find("--cache-limit"), std::string::npos);
  // The subset inside a limit needs no more than that.
  EXPECT_EQ(Open(1 << 20)->pinned_documents(), 1);
}

TEST_F(TrunkCacheTest, EveryDamagedByteIsSeen) {
  const auto h = RandomState(1, 1);
  int64_t size;
  {
    auto cache = Open();
    ASSERT_TRUE(cache->Put(1, 2, h.data()).ok());
    size = cache->file_bytes();
  }
  std::vector<float> got(h.size());
  const int64_t data = 4096 + 8 * 4 * 3 + 2 * kHidden * (31 * 2 + 5);
  for (int64_t at = data; at < data + 2 * kHidden; at += 13) {
    ASSERT_LT(at, size);
    {
      std::fstream f(path_, std::ios::in | std::ios::out | std::ios::binary);
      f.seekg(at);
      const char c = static_cast<char>(f.get() ^ 0x10);
      f.seekp(at);
      f.put(c);
    }
    auto cache = Open();
    EXPECT_TRUE(cache->Has(1, 2));
    EXPECT_FALSE(*cache->Get(1, 2, got.data()));
    EXPECT_EQ(cache->damaged_entries(), 1);
    ASSERT_TRUE(cache->Put(1, 2, h.data()).ok());
    EXPECT_TRUE(*cache->Get(1, 2, got.data()));
  }
}

TEST_F(TrunkCacheTest, KeepsAFixedSubsetInsideTheLimit) {
  const int64_t limit = 4096 + 8 * 4 * 3 + 2 * kHidden * 3 * 20;  // room for 20 of 31 tokens
  auto cache = Open(limit);
  EXPECT_LE(cache->file_bytes(), limit);
  int64_t pinned_tokens = 0;
  for (int64_t d = 0; d < 4; ++d)
    pinned_tokens += cache->Pinned(d) ? tokens_[static_cast<size_t>(d)] : 0;
  EXPECT_GT(pinned_tokens, 0);
  EXPECT_LE(pinned_tokens, 20);
  EXPECT_LE(static_cast<int64_t>(std::filesystem::file_size(path_)), limit);
}

TEST(HiddenCodec, Int8StaysWithinItsBoundBesideOutliers) {
  const auto h = RandomState(5, 9);
  std::vector<std::byte> bytes(
      static_cast<size_t>(9 * EncodedRowBytes(HiddenCodec::kInt8, kHidden)));
  std::vector<float> got(h.size());
  EncodeRows(HiddenCodec::kInt8, 9, kHidden, h.data(), bytes.data());
  DecodeRows(HiddenCodec::kInt8, 9, kHidden, bytes.data(), got.data());
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t g = 0; g < kHidden; g += 64) {
      float top = 0;
      const int64_t end = std::min<int64_t>(g + 64, kHidden);
      for (int64_t i = g; i < end; ++i) {
        top = std::max(top, std::abs(h[static_cast<size_t>(r * kHidden + i)]));
      }
      // Half a step; the scale was rounded up by at most one part in 2^7.
      const float bound = top / 254.0f * (1 + 0x1p-7f);
      for (int64_t i = g; i < end; ++i) {
        const auto at = static_cast<size_t>(r * kHidden + i);
        EXPECT_LE(std::abs(got[at] - h[at]), bound);
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::tune
