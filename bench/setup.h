// What every kernel benchmark starts from: one context, and rates held against peaks measured just
// before, in the same process.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "exec/context.h"
#include "kernels/peaks.h"

namespace edgewise::bench {

inline std::vector<float> RandomFloats(int64_t n, float scale = 1.0f) {
  std::vector<float> v(static_cast<size_t>(n));
  Rng rng(1, RngStream::kTest);
  for (float& x : v) x = scale * (2 * rng.NextFloat() - 1);
  return v;
}

// Counters of a benchmark that does `flops` operations on `bytes` of memory per iteration.
inline void Report(benchmark::State& state, double flops, double bytes, double peak_gflops) {
  using benchmark::Counter;
  const auto n = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = Counter(flops * n * 1e-9, Counter::kIsRate);
  state.counters["share_of_peak"] = Counter(flops * n * 1e-9 / peak_gflops, Counter::kIsRate);
  state.counters["GB/s"] = Counter(bytes * n * 1e-9, Counter::kIsRate);
}

// Each file of benchmarks registers its own.
void RegisterDense(ExecContext& ctx);
void RegisterAttention(ExecContext& ctx);
void RegisterHeadLoss(ExecContext& ctx);
void RegisterElements(ExecContext& ctx);

}  // namespace edgewise::bench
