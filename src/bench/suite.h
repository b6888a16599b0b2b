// What the files of benchmarks share: where they register, and how one is timed.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <regex>
#include <string>
#include <vector>

#include "base/rng.h"
#include "bench/shapes.h"
#include "exec/context.h"
#include "kernels/peaks.h"

namespace edgewise::bench {

enum class Limit { kFp32, kInt8, kRead };

// Peaks of the machine, measured again when the last time is some seconds ago. The best of the run
// counts, so that shares err on the low side.
class PeakMeter {
 public:
  explicit PeakMeter(ExecContext& ctx) : ctx_(ctx) {}
  void Refresh(Limit limit);
  double Best(Limit limit) const;  // operations or bytes per second; 0: not measured or no such
  kernels::Peaks peaks() const { return peaks_; }

 private:
  ExecContext& ctx_;
  kernels::Peaks peaks_;
  double measured_[3] = {-1e9, -1e9, -1e9};
};

// What one iteration does.
struct Work {
  double operations = 0;
  double bytes = 0;
  Limit limit = Limit::kFp32;
};

struct Suite {
  ExecContext& ctx;
  PeakMeter& peaks;
  std::vector<ModelShape> shapes;
  double min_seconds;
  std::regex filter;
  int64_t& selected;  // how many names matched so far

  void Add(const std::string& name, std::function<void(benchmark::State&)> fn) const {
    if (!std::regex_search(name, filter)) return;
    ++selected;
    benchmark::RegisterBenchmark(name.c_str(), std::move(fn))
        ->UseManualTime()
        ->MinTime(min_seconds);
  }
};

// Seconds on a clock that stands still while a context with one thread does not run.
double Clock(const ExecContext& ctx);

// Times fn() over and over and leaves rates in the state's counters; other() in turn with it is not
// counted.
template <typename Fn, typename Other>
void Time(benchmark::State& state, const Suite& suite, const Work& work, Fn fn, Other other) {
  suite.peaks.Refresh(work.limit);
  fn();
  double best = 1e30;
  for (auto _ : state) {
    const double start = Clock(suite.ctx);
    fn();
    const double seconds = std::max(Clock(suite.ctx) - start, 1e-9);
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
    other();
  }
  state.counters["best_seconds"] = best;
  state.counters["operations"] = work.operations;
  state.counters["bytes"] = work.bytes;
  state.counters["limit"] = static_cast<double>(work.limit);
}

template <typename Fn>
void Time(benchmark::State& state, const Suite& suite, const Work& work, Fn fn) {
  Time(state, suite, work, fn, [] {});
}

inline std::vector<float> RandomFloats(int64_t n, float scale = 1.0f) {
  std::vector<float> v(static_cast<size_t>(n));
  Rng rng(1, RngStream::kTest);
  for (float& x : v) x = scale * (2 * rng.NextFloat() - 1);
  return v;
}

// Each file of benchmarks registers its own.
void RegisterDense(const Suite& suite);
void RegisterPacked(const Suite& suite);
void RegisterAttention(const Suite& suite);
void RegisterHeadLoss(const Suite& suite);
void RegisterElements(const Suite& suite);

}  // namespace edgewise::bench
