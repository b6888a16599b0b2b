// Tilings change no bit; the search keeps one that it measured; files survive and are checked.
#include "schedule/kernel_search.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/packed_matrix.h"
#include "testing/model_support.h"

namespace edgewise::schedule {
namespace {

kernels::PackedFormat Format(int bits, kernels::Structure structure) {
  kernels::PackedFormat f;
  f.rows = 176;
  f.cols = 1216;  // more than a panel holds
  f.bits = bits;
  f.structure = structure;
  if (structure == kernels::Structure::kBlock) f.block_cols = 64;
  f.group = structure == kernels::Structure::kDense ? 64 : 0;
  return f;
}

TEST(KernelSearch, TilingsChangeNoBit) {
  const auto ctx = testing::MakeContext(2);
  constexpr int64_t kTokens = 77;
  for (const auto structure : {kernels::Structure::kDense, kernels::Structure::kUnstructured,
                               kernels::Structure::kBlock}) {
    for (int bits : {3, 4, 8}) {
      const kernels::PackedFormat f = Format(bits, structure);
      Rng rng(7, RngStream::kTest);
      FloatBuffer w(f.rows * f.cols), x(kTokens * f.cols);
      for (float& v : w.span()) v = rng.NextFloat() < 0.5f ? 0.0f : rng.NextFloat() - 0.5f;
      for (float& v : x.span()) v = rng.NextFloat() - 0.5f;
      auto packed = kernels::Pack(f, w.data(), f.cols);
      ASSERT_TRUE(packed.ok()) << packed.status().message();
      const auto run = [&](const ProductTiling& tiling) {
        packed->set_tiling(tiling);
        std::vector<float> y(static_cast<size_t>(kTokens * f.rows));
        kernels::PackedForward(*ctx, kTokens, x.data(), f.cols, *packed, {0, f.rows}, nullptr,
                               y.data(), f.rows, kernels::Accumulate::kOverwrite);
        return y;
      };
      const std::vector<float> want = run({});
      for (int64_t tiles : {1, 2, 3, 4}) {
        for (int64_t rows : {1, 6, 32, 77, 512}) {
          for (auto order : {kernels::LoopOrder::kPanels, kernels::LoopOrder::kRows}) {
            for (int64_t ahead = 0; ahead <= kernels::kMostAhead; ++ahead) {
              EXPECT_EQ(run({tiles, rows, order, ahead}), want);
            }
          }
        }
      }
    }
  }
}

// The default is timed among those it chooses from, so what is kept is never slower.
TEST(KernelSearch, KeepsWhatItMeasured) {
  const auto ctx = testing::MakeContext(2);
  KernelSearchOptions options;
  options.tokens = 64;
  options.measure = 3;
  const auto r = SearchKernel(*ctx, Format(4, kernels::Structure::kDense), options);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_GT(r->chosen_seconds, 0);
  EXPECT_LE(r->chosen_seconds, r->default_seconds);
  if (r->chosen_seconds == r->default_seconds) {
    EXPECT_EQ(r->chosen, ProductTiling());
  } else {
    EXPECT_TRUE(std::any_of(r->candidates.begin(), r->candidates.end(),
                            [&](const auto& c) { return c.tiling == r->chosen && c.seconds > 0; }));
  }
  // Of the cuts measured the other distances, too; no others.
  EXPECT_EQ(r->measured, 9);
  EXPECT_EQ(std::count_if(r->candidates.begin(), r->candidates.end(),
                          [](const auto& c) { return c.seconds > 0; }),
            9);
}

TEST(KernelSearch, ComparesWithTheBestOfAll) {
  const auto ctx = testing::MakeContext(2);
  KernelSearchOptions options;
  options.tokens = 64;
  options.measure = 3;
  options.exhaustive = true;
  const auto r = SearchKernel(*ctx, Format(4, kernels::Structure::kDense), options);
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->measured, 9);  // and two other distances of each
  EXPECT_GT(r->candidates.size(), 9u);
  EXPECT_GE(r->chosen_seconds, r->exhaustive_seconds);
  EXPECT_GE(r->default_seconds, r->exhaustive_seconds);
  for (size_t i = 1; i < r->candidates.size(); ++i) {
    EXPECT_LE(r->candidates[i - 1].predicted_seconds, r->candidates[i].predicted_seconds);
    EXPECT_GT(r->candidates[i].seconds, 0);
  }
}

TEST(KernelSearch, ListsEveryChoiceOnce) {
  const auto dense = ListTilings(Format(4, kernels::Structure::kDense), 512);
  // Three widths; five row counts in two orders, but one where a task has all rows; three
  // distances.
  EXPECT_EQ(dense.size(), 81u);
  for (size_t i = 0; i < dense.size(); ++i) {
    EXPECT_EQ(std::count(dense.begin(), dense.end(), dense[i]), 1);
  }
  EXPECT_EQ(ListTilings(Format(4, kernels::Structure::kUnstructured), 512).size(), 27u);
  EXPECT_EQ(ListTilings(Format(4, kernels::Structure::kBlock), 512).size(), 9u);
}

TEST(KernelSearch, FilesSurviveAndAreChecked) {
  namespace fs = std::filesystem;
  const fs::path path =
      fs::path(::testing::TempDir()) / ("edgewise-tuning-" + std::to_string(::getpid()) + ".json");
  KernelTuning tuning, back;
  tuning.Set({128, 64, 4, 1}, {2, 96, kernels::LoopOrder::kRows, 0});
  tuning.Set({128, 64, 8, 0}, {1, 32, kernels::LoopOrder::kPanels, 2});
  ASSERT_TRUE(SaveTuning(tuning, path.string()).ok());
  ASSERT_TRUE(LoadTuning(path.string(), &back).ok());
  EXPECT_EQ(back.all(), tuning.all());
  std::ofstream(path)
      << R"({"products": [{"out": 1, "in": 1, "bits": 4, "structure": 0, "tiles": 9, "task_rows": 1}]})";
  EXPECT_FALSE(LoadTuning(path.string(), &back).ok());
  std::ofstream(path)
      << R"({"products": [{"out": 1, "in": 1, "bits": 4, "structure": 0, "tiles": 1, "task_rows": 1, "ahead": 3}]})";
  EXPECT_FALSE(LoadTuning(path.string(), &back).ok());
  std::ofstream(path)
      << R"({"products": [{"out": 1, "in": 1, "bits": 4, "structure": 0, "tiles": 1, "task_rows": 1, "order": "x"}]})";
  EXPECT_FALSE(LoadTuning(path.string(), &back).ok());
  std::ofstream(path) << R"({"products": [{}]})";
  EXPECT_FALSE(LoadTuning(path.string(), &back).ok());
  fs::remove(path);
  EXPECT_TRUE(LoadTuning(path.string(), &back).ok());
}

}  // namespace
}  // namespace edgewise::schedule
