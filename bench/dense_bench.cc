// Dense linear layers: forward, both gradients, and low-rank adapters.
#include <string>

#include "bench/setup.h"
#include "bench/shapes.h"
#include "kernels/linear.h"

namespace edgewise::bench {
namespace {

using kernels::WeightRef;

void Forward(benchmark::State& state, ExecContext& ctx, int64_t m, LinearShape s) {
  const auto x = RandomFloats(m * s.in), w = RandomFloats(s.out * s.in);
  std::vector<float> y(static_cast<size_t>(m * s.out));
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) {
    kernels::LinearForward(ctx, m, x.data(), s.in, WeightRef::Dense(w.data(), s.out, s.in), nullptr,
                           y.data(), s.out);
  }
  Report(state, 2.0 * static_cast<double>(m * s.out * s.in),
         4.0 * static_cast<double>(s.out * s.in + m * (s.in + s.out)), peak);
}

void BackwardInput(benchmark::State& state, ExecContext& ctx, int64_t m, LinearShape s) {
  const auto dy = RandomFloats(m * s.out), w = RandomFloats(s.out * s.in);
  std::vector<float> dx(static_cast<size_t>(m * s.in));
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) {
    kernels::LinearBackwardInput(ctx, m, dy.data(), s.out, WeightRef::Dense(w.data(), s.out, s.in),
                                 dx.data(), s.in);
  }
  Report(state, 2.0 * static_cast<double>(m * s.out * s.in),
         4.0 * static_cast<double>(s.out * s.in + m * (s.in + s.out)), peak);
}

void BackwardWeight(benchmark::State& state, ExecContext& ctx, int64_t m, LinearShape s) {
  const auto dy = RandomFloats(m * s.out), x = RandomFloats(m * s.in);
  std::vector<float> dw(static_cast<size_t>(s.out * s.in));
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) {
    kernels::LinearBackwardWeight(ctx, m, s.out, s.in, dy.data(), s.out, x.data(), s.in, dw.data(),
                                  nullptr);
  }
  Report(state, 2.0 * static_cast<double>(m * s.out * s.in),
         4.0 * static_cast<double>(2 * s.out * s.in + m * (s.in + s.out)), peak);
}

void Lora(benchmark::State& state, ExecContext& ctx, int64_t m, LinearShape s, bool backward) {
  constexpr int64_t r = 8;
  const auto x = RandomFloats(m * s.in), a = RandomFloats(r * s.in), b = RandomFloats(s.out * r);
  auto y = RandomFloats(m * s.out), xa = RandomFloats(m * r), dxa = xa, dx = x, da = a, db = b;
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) {
    if (backward) {
      kernels::LoraBackward(ctx, m, s.in, s.out, r, 0.5f, x.data(), s.in, xa.data(), a.data(),
                            b.data(), y.data(), s.out, dxa.data(), da.data(), db.data(), dx.data(),
                            s.in);
    } else {
      kernels::LoraForward(ctx, m, s.in, s.out, r, 0.5f, x.data(), s.in, a.data(), b.data(),
                           xa.data(), y.data(), s.out);
    }
  }
  // Every operand that is as long as the tokens is read or written once per product.
  const auto rows = static_cast<double>(m);
  const auto in = static_cast<double>(s.in), out = static_cast<double>(s.out);
  Report(state, 2.0 * r * rows * (in + out) * (backward ? 2 : 1),
         4.0 * rows * (backward ? 3 * in + 2 * out : in + 2 * out), peak);
}

}  // namespace

void RegisterDense(ExecContext& ctx) {
  for (const ModelShape& model : ModelShapes()) {
    for (const LinearShape& s : Linears(model)) {
      const std::string base = std::string(model.name) + "/" + s.name + "/";
      auto add = [&](const std::string& name, auto fn) {
        benchmark::RegisterBenchmark((base + name).c_str(), fn)->UseRealTime();
      };
      for (int64_t m : {1, 4, 16, 512}) {
        add("forward/" + std::to_string(m),
            [&ctx, m, s](benchmark::State& state) { Forward(state, ctx, m, s); });
      }
      add("backward_input/512",
          [&ctx, s](benchmark::State& state) { BackwardInput(state, ctx, 512, s); });
      add("backward_weight/512",
          [&ctx, s](benchmark::State& state) { BackwardWeight(state, ctx, 512, s); });
      add("lora_forward/512",
          [&ctx, s](benchmark::State& state) { Lora(state, ctx, 512, s, false); });
      add("lora_backward/512",
          [&ctx, s](benchmark::State& state) { Lora(state, ctx, 512, s, true); });
    }
  }
}

}  // namespace edgewise::bench
