// Attention: 512 tokens forward and backward, and one token after a cache of 511.
#include "bench/suite.h"
#include "kernels/attention.h"

namespace edgewise::bench {
namespace {

enum class Pass { kForward, kBackward, kDecode };

void Attention(benchmark::State& state, const Suite& suite, const ModelShape& model, Pass pass) {
  constexpr int64_t len = 512;
  ExecContext& ctx = suite.ctx;
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
  const double pairs = pass == Pass::kDecode ? len : 0.5 * len * (len + 1);
  const double products = pass == Pass::kBackward ? 5 : 2;
  const Work work = {2.0 * products * pairs * static_cast<double>(wide),
                     8.0 * static_cast<double>(len * narrow),
                     pass == Pass::kDecode ? Limit::kRead : Limit::kFp32};
  Time(state, suite, work, [&] {
    if (pass != Pass::kBackward) return forward(pass == Pass::kForward ? len : 1);
    kernels::AttentionBackward(ctx, shape, {first.data(), 0}, len, q.data(), wide, k.data(),
                               v.data(), narrow, out.data(), dout.data(), wide, lse.data(),
                               dq.data(), wide, dk.data(), dv.data(), narrow);
  });
}

}  // namespace

void RegisterAttention(const Suite& suite) {
  for (const ModelShape& model : suite.shapes) {
    const std::pair<const char*, Pass> passes[] = {
        {"forward", Pass::kForward}, {"backward", Pass::kBackward}, {"decode", Pass::kDecode}};
    for (const auto& [name, pass] : passes) {
      suite.Add(
          std::string("attention/") + name + "/m512/" + model.name,
          [suite, model, pass = pass](benchmark::State& s) { Attention(s, suite, model, pass); });
    }
  }
}

}  // namespace edgewise::bench
