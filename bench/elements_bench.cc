// Row-wise and element-wise operations on 512 tokens: all of them are bound by memory or the vector
// exponential.
#include <string>

#include "bench/setup.h"
#include "bench/shapes.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"

namespace edgewise::bench {
namespace {

constexpr int64_t kTokens = 512;

void Norm(benchmark::State& state, ExecContext& ctx, int64_t n, bool backward) {
  const auto x = RandomFloats(kTokens * n), w = RandomFloats(n), dy = RandomFloats(kTokens * n);
  std::vector<float> y(x.size()), rstd(kTokens, 1.0f);
  for (auto _ : state) {
    if (backward) {
      kernels::RmsNormBackward(ctx, kTokens, n, false, x.data(), w.data(), rstd.data(), dy.data(),
                               y.data(), true, nullptr);
    } else {
      kernels::RmsNormForward(ctx, kTokens, n, 1e-5f, false, x.data(), w.data(), y.data(),
                              rstd.data());
    }
  }
  const auto count = static_cast<double>(kTokens * n);
  Report(state, (backward ? 9 : 4) * count, (backward ? 16 : 8) * count,
         kernels::MeasureFp32Peak(ctx));
}

void SwiGlu(benchmark::State& state, ExecContext& ctx, int64_t n, bool backward) {
  const auto gate = RandomFloats(kTokens * n, 4), up = RandomFloats(kTokens * n), dout = up;
  std::vector<float> a(gate.size()), b(gate.size());
  for (auto _ : state) {
    if (backward) {
      kernels::GatedBackward(ctx, kernels::Activation::kSilu, kTokens * n, gate.data(), up.data(),
                             dout.data(), a.data(), b.data());
    } else {
      kernels::GatedForward(ctx, kernels::Activation::kSilu, kTokens * n, gate.data(), up.data(),
                            a.data());
    }
  }
  const auto count = static_cast<double>(kTokens * n);
  Report(state, (backward ? 30 : 24) * count, (backward ? 20 : 12) * count,
         kernels::MeasureFp32Peak(ctx));
}

void Adam(benchmark::State& state, ExecContext& ctx, int64_t count) {
  auto p = RandomFloats(count), m = RandomFloats(count), v = std::vector<float>(p.size(), 1.0f);
  const auto g = RandomFloats(count);
  kernels::AdamWParams params;
  params.lr = 1e-4f;
  for (auto _ : state) {
    kernels::AdamWStep(ctx, params, count, p.data(), g.data(), m.data(), v.data());
  }
  Report(state, 14.0 * static_cast<double>(count), 28.0 * static_cast<double>(count),
         kernels::MeasureFp32Peak(ctx));
}

}  // namespace

void RegisterElements(ExecContext& ctx) {
  for (const ModelShape& model : ModelShapes()) {
    const std::string base = std::string(model.name) + "/";
    auto add = [&](const char* name, auto fn) {
      benchmark::RegisterBenchmark((base + name).c_str(), fn)->UseRealTime();
    };
    const int64_t hidden = model.hidden, ffn = model.ffn;
    add("rms_norm/forward", [&ctx, hidden](benchmark::State& s) { Norm(s, ctx, hidden, false); });
    add("rms_norm/backward", [&ctx, hidden](benchmark::State& s) { Norm(s, ctx, hidden, true); });
    add("swiglu/forward", [&ctx, ffn](benchmark::State& s) { SwiGlu(s, ctx, ffn, false); });
    add("swiglu/backward", [&ctx, ffn](benchmark::State& s) { SwiGlu(s, ctx, ffn, true); });
    add("adamw", [&ctx, hidden, ffn](benchmark::State& s) { Adam(s, ctx, hidden * ffn); });
  }
}

}  // namespace edgewise::bench
