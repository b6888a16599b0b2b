// Dense fp32 linear layers: forward, both gradients, and low-rank adapters.
#include "bench/suite.h"
#include "kernels/linear.h"

namespace edgewise::bench {
namespace {

using kernels::WeightRef;

enum class Pass { kForward, kInput, kWeight };

void Dense(benchmark::State& state, const Suite& suite, int64_t m, LinearShape s, Pass pass) {
  ExecContext& ctx = suite.ctx;
  const auto x = RandomFloats(m * s.in), w = RandomFloats(s.out * s.in),
             y = RandomFloats(m * s.out);
  std::vector<float> dx(static_cast<size_t>(m * s.in)), out(static_cast<size_t>(m * s.out)),
      dw(static_cast<size_t>(pass == Pass::kWeight ? s.out * s.in : 0));
  const auto weight = WeightRef::Dense(w.data(), s.out, s.in);
  const auto operands = static_cast<double>(s.out * s.in + m * (s.in + s.out));
  const Work work = {2.0 * static_cast<double>(m * s.out * s.in), 4 * operands,
                     m == 1 ? Limit::kRead : Limit::kFp32};
  Time(state, suite, work, [&] {
    switch (pass) {
      case Pass::kForward:
        return kernels::LinearForward(ctx, m, x.data(), s.in, weight, nullptr, out.data(), s.out);
      case Pass::kInput:
        return kernels::LinearBackwardInput(ctx, m, y.data(), s.out, weight, dx.data(), s.in);
      case Pass::kWeight:
        return kernels::LinearBackwardWeight(ctx, m, s.out, s.in, y.data(), s.out, x.data(), s.in,
                                             dw.data(), nullptr);
    }
  });
}

void Lora(benchmark::State& state, const Suite& suite, int64_t m, LinearShape s, int64_t r,
          bool backward) {
  ExecContext& ctx = suite.ctx;
  const auto x = RandomFloats(m * s.in), a = RandomFloats(r * s.in), b = RandomFloats(s.out * r);
  auto y = RandomFloats(m * s.out), xa = RandomFloats(m * r), dxa = xa, dx = x, da = a, db = b;
  // Every operand that is as long as the tokens is read or written once per product.
  const auto rows = static_cast<double>(m);
  const auto in = static_cast<double>(s.in), out = static_cast<double>(s.out);
  const Work work = {2.0 * static_cast<double>(r) * rows * (in + out) * (backward ? 2 : 1),
                     4.0 * rows * (backward ? 3 * in + 2 * out : in + 2 * out), Limit::kFp32};
  Time(state, suite, work, [&] {
    if (backward) {
      kernels::LoraBackward(ctx, m, s.in, s.out, r, 0.5f, x.data(), s.in, xa.data(), a.data(),
                            b.data(), y.data(), s.out, dxa.data(), da.data(), db.data(), dx.data(),
                            s.in);
    } else {
      kernels::LoraForward(ctx, m, s.in, s.out, r, 0.5f, x.data(), s.in, a.data(), b.data(),
                           xa.data(), y.data(), s.out);
    }
  });
}

}  // namespace

void RegisterDense(const Suite& suite) {
  for (const ModelShape& model : suite.shapes) {
    for (const LinearShape& s : Linears(model)) {
      const std::string tail = std::string("/") + model.name + "/" + s.name;
      for (int64_t m : {1, 4, 16, 512}) {
        suite.Add("forward/fp32/m" + std::to_string(m) + tail,
                  [suite, m, s](benchmark::State& st) { Dense(st, suite, m, s, Pass::kForward); });
      }
      suite.Add("backward/fp32/m512" + tail,
                [suite, s](benchmark::State& st) { Dense(st, suite, 512, s, Pass::kInput); });
      suite.Add("backward_weight/fp32/m512" + tail,
                [suite, s](benchmark::State& st) { Dense(st, suite, 512, s, Pass::kWeight); });
      // The ranks of LoRA and of adaptive tuning.
      for (const auto& [name, r] : {std::pair{"lora/", 8}, {"lora_r32/", 32}}) {
        for (const bool backward : {false, true}) {
          suite.Add(name + std::string(backward ? "backward" : "forward") + "/m512" + tail,
                    [suite, s, r = r, backward](benchmark::State& st) {
                      Lora(st, suite, 512, s, r, backward);
                    });
        }
      }
    }
  }
}

}  // namespace edgewise::bench
