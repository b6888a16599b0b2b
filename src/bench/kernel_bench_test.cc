#include "bench/kernel_bench.h"

#include <gtest/gtest.h>

namespace edgewise::bench {
namespace {

class KernelBench : public testing::Test {
 protected:
  void SetUp() override {
    ExecOptions options;
    options.threads = 2;
    auto made = ExecContext::Create(options);
    ASSERT_TRUE(made.ok());
    ctx_ = std::move(*made);
  }
  std::unique_ptr<ExecContext> ctx_;
};

TEST_F(KernelBench, MeasuresWhatTheFilterSelects) {
  KernelBenchOptions options;
  options.shape = std::string("smollm2-135m");
  options.filter = std::string("^(forward|backward_integer)/q4_g64_block50/m(1|512)/.*/q$");
  options.min_seconds = 0.001;
  int calls = 0;
  const auto report =
      RunKernelBenchmarks(*ctx_, options, [&](const KernelBenchResult&) { ++calls; });
  ASSERT_TRUE(report.ok()) << report.status().message();
  ASSERT_EQ(report->results.size(), 3u);
  EXPECT_EQ(calls, 3);
  for (const KernelBenchResult& r : report->results) {
    EXPECT_GT(r.seconds, 0) << r.name;
    EXPECT_GE(r.seconds_mean, r.seconds * 0.999) << r.name;
    EXPECT_GT(r.gops, 0) << r.name;
    EXPECT_GT(r.gbytes, 0) << r.name;
    EXPECT_TRUE(r.share_of_peak > 0 || r.peak == "int8") << r.name;
  }
  const KernelBenchResult& backward = report->results.back();
  EXPECT_EQ(backward.name, "backward_integer/q4_g64_block50/m512/smollm2-135m/q");
  EXPECT_EQ(backward.peak, "fp32");
  // The integer backward pass rounds twice to 8 bits (docs/packed-layouts.md).
  EXPECT_LT(backward.more.at("relative_error"), 0.02);
  EXPECT_GT(report->results[0].more.at("bits_per_weight"), 2);
}

TEST_F(KernelBench, SaysWhatItDoesNotKnow) {
  KernelBenchOptions options;
  options.shape = std::string("gpt-5");
  EXPECT_EQ(RunKernelBenchmarks(*ctx_, options, {}).status().code(), StatusCode::kInvalidArgument);
  options.shape = std::string("llama-7b");
  options.filter = std::string("[");
  EXPECT_EQ(RunKernelBenchmarks(*ctx_, options, {}).status().code(), StatusCode::kInvalidArgument);
  options.filter = std::string("no such benchmark");
  EXPECT_EQ(RunKernelBenchmarks(*ctx_, options, {}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise::bench
