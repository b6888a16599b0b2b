#include "compress/latency.h"

#include <gtest/gtest.h>

#include "compress/compress_linear.h"

namespace edgewise::compress {
namespace {

using plan::KernelKind;

// 10 GB/s of memory; dense kernels keep up with it, sparse ones do a quarter of that.
plan::Device SlowAtSparse() {
  plan::Device d;
  d.levels = {
      {"l2", 1 << 20, 100, 0, 0}, {"ram", int64_t{8} << 30, 10, 0, 0}, {"disk", 0, 1, 0, 0}};
  d.kernels = {{KernelKind::kLinearForward, 4, 0, false, 1, 1024, 1024, 1000},
               {KernelKind::kLinearForward, 4, 0.5, false, 1, 1024, 1024, 5}};
  return d;
}

TEST(DecodeLatency, IsTheTimeOfReadingTheBytesWhereTheKernelKeepsUp) {
  const plan::Device device = SlowAtSparse();
  const CostFn latency = DecodeLatency(device, 64, "unstructured");
  for (const int bits : {2, 3, 4, 8}) {
    const Option option{bits, 0};
    const auto bytes = static_cast<double>(PackedBytes(1024, 1024, option, 64, "unstructured"));
    EXPECT_NEAR(static_cast<double>(latency(1024, 1024, option)), bytes / 10, 1) << bits;
  }
}

TEST(DecodeLatency, IsTheKernelsWhereThatIsSlower) {
  const plan::Device device = SlowAtSparse();
  const CostFn latency = DecodeLatency(device, 64, "unstructured");
  // 2 * 1024 * 1024 operations at 5 * 10^9 a second.
  EXPECT_NEAR(static_cast<double>(latency(1024, 1024, {4, 0.5})), 2.0 * 1024 * 1024 / 5, 2);
  EXPECT_GT(latency(1024, 1024, {4, 0.5}), latency(1024, 1024, {8, 0}));
}

}  // namespace
}  // namespace edgewise::compress
