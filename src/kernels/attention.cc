#include "kernels/attention.h"

#include "kernels/ref/attention.h"

namespace edgewise::kernels {

void AttentionForward(ExecContext& ctx, const AttentionShape& shape, const AttentionMask& mask,
                      int64_t q_len, const float* q, int64_t ldq, const float* k, const float* v,
                      int64_t ldkv, float* out, int64_t ldo, float* lse) {
  const int64_t d = shape.head_dim, group = shape.q_heads / shape.kv_heads;
  ctx.ParallelFor(shape.kv_heads, 1, [&](int64_t g, int64_t, int) {
    AttentionShape one = shape;
    one.q_heads = group;
    one.kv_heads = 1;
    ref::Attention<float>(one, mask, q_len, q + g * group * d, ldq, k + g * d, v + g * d, ldkv,
                          out + g * group * d, ldo,
                          lse == nullptr ? nullptr : lse + g * group * q_len);
  });
}

void AttentionBackward(ExecContext& ctx, const AttentionShape& shape, const AttentionMask& mask,
                       int64_t len, const float* q, int64_t ldq, const float* k, const float* v,
                       int64_t ldkv, const float* out, const float* dout, int64_t ldo,
                       const float* lse, float* dq, int64_t lddq, float* dk, float* dv,
                       int64_t lddkv) {
  const int64_t d = shape.head_dim, group = shape.q_heads / shape.kv_heads;
  ctx.ParallelFor(shape.kv_heads, 1, [&](int64_t g, int64_t, int) {
    AttentionShape one = shape;
    one.q_heads = group;
    one.kv_heads = 1;
    const int64_t hq = g * group * d, kv = g * d;
    ref::AttentionVjp<float>(one, mask, len, q + hq, ldq, k + kv, v + kv, ldkv, out + hq, dout + hq,
                             ldo, lse + g * group * len, dq + hq, lddq, dk + kv, dv + kv, lddkv);
  });
}

}  // namespace edgewise::kernels
