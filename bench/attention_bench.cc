// Attention: 512 tokens forward and backward, and one token after a cache of 511.
#include <string>

#include "bench/setup.h"
#include "bench/shapes.h"
#include "kernels/attention.h"

namespace edgewise::bench {
namespace {

enum class Pass { kForward, kBackward, kDecode };

void Attention(benchmark::State& state, ExecContext& ctx, const ModelShape& model, Pass pass) {
  constexpr int64_t len = 512;
  const int64_t d = model.head_dim, wide = model.heads * d, narrow = model.kv_heads * d;
  const kernels::AttentionShape shape = {model.heads, model.kv_heads, d, 0.125f, 0};
  const auto q = RandomFloats(len * wide), dout = RandomFloats(len * wide),
             k = RandomFloats(len * narrow), v = RandomFloats(len * narrow);
  std::vector<float> out(q.size()), dq(q.size()), dk(k.size()), dv(v.size()),
      lse(static_cast<size_t>(model.heads * len));
  const std::vector<int32_t> first(len, 0);
  auto forward = [&](int64_t queries) {
    kernels::AttentionForward(ctx, shape, {first.data(), len - queries}, queries, q.data(), wide,
                              k.data(), v.data(), narrow, out.data(), wide, lse.data());
  };
  forward(len);
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) {
    switch (pass) {
      case Pass::kForward:
        forward(len);
        break;
      case Pass::kDecode:
        forward(1);
        break;
      case Pass::kBackward:
        kernels::AttentionBackward(ctx, shape, {first.data(), 0}, len, q.data(), wide, k.data(),
                                   v.data(), narrow, out.data(), dout.data(), wide, lse.data(),
                                   dq.data(), wide, dk.data(), dv.data(), narrow);
        break;
    }
  }
  const double pairs = pass == Pass::kDecode ? len : 0.5 * len * (len + 1);
  const double products = pass == Pass::kBackward ? 5 : 2;
  Report(state, 2.0 * products * pairs * static_cast<double>(wide),
         8.0 * static_cast<double>(len * narrow), peak);
}

}  // namespace

void RegisterAttention(ExecContext& ctx) {
  for (const ModelShape& model : ModelShapes()) {
    const std::string base = std::string(model.name) + "/attention/";
    const std::pair<const char*, Pass> passes[] = {{"forward/512", Pass::kForward},
                                                   {"backward/512", Pass::kBackward},
                                                   {"decode/512", Pass::kDecode}};
    for (const auto& [name, pass] : passes) {
      benchmark::RegisterBenchmark((base + name).c_str(), [&ctx, &model,
                                                           pass = pass](benchmark::State& s) {
        Attention(s, ctx, model, pass);
      })->UseRealTime();
    }
  }
}

}  // namespace edgewise::bench
