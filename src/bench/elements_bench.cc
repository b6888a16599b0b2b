// Row-wise and element-wise operations on 512 tokens: all of them are bound by memory or the vector
// exponential.
#include "bench/suite.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"

namespace edgewise::bench {
namespace {

constexpr int64_t kTokens = 512;

void Norm(benchmark::State& state, const Suite& suite, int64_t n, bool backward) {
  const auto x = RandomFloats(kTokens * n), w = RandomFloats(n), dy = RandomFloats(kTokens * n);
  std::vector<float> y(x.size()), rstd(kTokens, 1.0f);
  const auto count = static_cast<double>(kTokens * n);
  const Work work = {(backward ? 9 : 4) * count, (backward ? 16 : 8) * count, Limit::kRead};
  Time(state, suite, work, [&] {
    if (backward) {
      kernels::RmsNormBackward(suite.ctx, kTokens, n, false, x.data(), w.data(), rstd.data(),
                               dy.data(), y.data(), true, nullptr);
    } else {
      kernels::RmsNormForward(suite.ctx, kTokens, n, 1e-5f, false, x.data(), w.data(), y.data(),
                              rstd.data());
    }
  });
}

void SwiGlu(benchmark::State& state, const Suite& suite, int64_t n, bool backward) {
  const auto gate = RandomFloats(kTokens * n, 4), up = RandomFloats(kTokens * n), dout = up;
  std::vector<float> a(gate.size()), b(gate.size());
  const auto count = static_cast<double>(kTokens * n);
  const Work work = {(backward ? 30 : 24) * count, (backward ? 20 : 12) * count, Limit::kRead};
  Time(state, suite, work, [&] {
    if (backward) {
      kernels::GatedBackward(suite.ctx, kernels::Activation::kSilu, kTokens * n, gate.data(),
                             up.data(), dout.data(), a.data(), b.data());
    } else {
      kernels::GatedForward(suite.ctx, kernels::Activation::kSilu, kTokens * n, gate.data(),
                            up.data(), a.data());
    }
  });
}

void Adam(benchmark::State& state, const Suite& suite, int64_t count) {
  auto p = RandomFloats(count), m = RandomFloats(count), v = std::vector<float>(p.size(), 1.0f);
  const auto g = RandomFloats(count);
  kernels::AdamWParams params;
  params.lr = 1e-4f;
  const Work work = {14.0 * static_cast<double>(count), 28.0 * static_cast<double>(count),
                     Limit::kRead};
  Time(state, suite, work, [&] {
    kernels::AdamWStep(suite.ctx, params, count, p.data(), g.data(), m.data(), v.data());
  });
}

}  // namespace

void RegisterElements(const Suite& suite) {
  for (const ModelShape& model : suite.shapes) {
    const int64_t hidden = model.hidden, ffn = model.ffn;
    for (const bool backward : {false, true}) {
      const std::string tail = std::string(backward ? "backward" : "forward") + "/m512/";
      suite.Add("rms_norm/" + tail + model.name, [suite, hidden, backward](benchmark::State& s) {
        Norm(s, suite, hidden, backward);
      });
      suite.Add("swiglu/" + tail + model.name,
                [suite, ffn, backward](benchmark::State& s) { SwiGlu(s, suite, ffn, backward); });
    }
    suite.Add(std::string("adamw/") + model.name,
              [suite, hidden, ffn](benchmark::State& s) { Adam(s, suite, hidden * ffn); });
  }
}

}  // namespace edgewise::bench
