#include "kernels/attention.h"

#include <algorithm>
#include <cassert>

#include "base/checked.h"
#include "kernels/kernel_table.h"

namespace edgewise::kernels {
namespace {

// Query rows of one task; long enough that packing a tile of keys is cheap, short enough that its
// scores stay in a level 2 cache.
constexpr int64_t kRowsPerTask = 256;
// Memory for the gradients of keys and values per query head, before heads that share them are
// added up.
constexpr int64_t kShareBytes = 8 << 20;

}  // namespace

void AttentionForward(ExecContext& ctx, const AttentionShape& shape, const AttentionMask& mask,
                      int64_t q_len, const float* q, int64_t ldq, const float* k, const float* v,
                      int64_t ldkv, float* out, int64_t ldo, float* lse) {
  if (q_len <= 0) return;
  const KernelTable& t = TableFor(ctx.isa());
  const AttentionArgs args = {shape, mask, q_len, q, ldq, k, v, ldkv, out, ldo, lse};
  const int64_t group = shape.q_heads / shape.kv_heads;
  const int64_t block = std::min(q_len, int64_t{t.mr} * std::max(1, 56 / t.mr));
  const int64_t blocks = CeilDiv(q_len, block);
  // Heads that share keys share the work of packing them, as long as there are tasks for everyone.
  int64_t heads = std::clamp(kRowsPerTask / block, int64_t{1}, group);
  while (heads > 1 && shape.kv_heads * CeilDiv(group, heads) * blocks < 3 * ctx.threads()) --heads;
  const int64_t splits = CeilDiv(group, heads);
  ctx.pool().Run(shape.kv_heads * splits * blocks, [&](int64_t task, int worker) {
    // The last queries see most keys: the longest tasks go first.
    const int64_t b = blocks - 1 - task / (shape.kv_heads * splits);
    const int64_t kv = task % (shape.kv_heads * splits) / splits, part = task % splits;
    const int64_t h0 = kv * group + part * heads, h1 = std::min(h0 + heads, (kv + 1) * group);
    const int64_t q0 = b * block, q1 = std::min(q0 + block, q_len);
    const int64_t floats = t.attention_forward_scratch((h1 - h0) * (q1 - q0), shape.head_dim);
    auto* scratch =
        static_cast<float*>(ctx.Scratch(worker, static_cast<size_t>(floats) * sizeof(float)));
    t.attention_forward(args, h0, h1, q0, q1, scratch);
  });
}

void AttentionBackward(ExecContext& ctx, const AttentionShape& shape, const AttentionMask& mask,
                       int64_t len, const float* q, int64_t ldq, const float* k, const float* v,
                       int64_t ldkv, const float* out, const float* dout, int64_t ldo,
                       const float* lse, float* dq, int64_t lddq, float* dk, float* dv,
                       int64_t lddkv) {
  assert(mask.q_offset == 0);
  if (len <= 0) return;
  const KernelTable& t = TableFor(ctx.isa());
  const AttentionGradArgs args = {shape, mask, len,  q,   ldq, k,  v,
                                  ldkv,  out,  dout, ldo, lse, dq, lddq};
  const int64_t d = shape.head_dim, group = shape.q_heads / shape.kv_heads;
  const size_t scratch_bytes =
      static_cast<size_t>(t.attention_backward_scratch(len, d)) * sizeof(float);
  if (group == 1) {
    ctx.pool().Run(shape.q_heads, [&](int64_t h, int worker) {
      t.attention_backward(args, h, dk + h * d, dv + h * d, lddkv,
                           static_cast<float*>(ctx.Scratch(worker, scratch_bytes)));
    });
    return;
  }
  // Each query head writes its share of dk and dv; shares are added in the order of heads. As many
  // key-value heads at once as fit the memory.
  const int64_t share = 2 * len * d;
  const int64_t share_bytes = share * static_cast<int64_t>(sizeof(float));
  const int64_t round =
      std::clamp(kShareBytes / (group * share_bytes),
                 std::min<int64_t>(shape.kv_heads, CeilDiv(ctx.threads(), group)), shape.kv_heads);
  auto* shares =
      static_cast<float*>(ctx.SharedScratch(static_cast<size_t>(round * group * share_bytes)));
  for (int64_t kv0 = 0; kv0 < shape.kv_heads; kv0 += round) {
    const int64_t kvs = std::min(round, shape.kv_heads - kv0);
    ctx.pool().Run(kvs * group, [&](int64_t i, int worker) {
      float* mine = shares + i * share;
      t.attention_backward(args, kv0 * group + i, mine, mine + len * d, d,
                           static_cast<float*>(ctx.Scratch(worker, scratch_bytes)));
    });
    ctx.ParallelFor(len, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t kv = 0; kv < kvs; ++kv) {
        for (int64_t j = begin; j < end; ++j) {
          for (int64_t g = 0; g < group; ++g) {
            const float* mine = shares + (kv * group + g) * share + j * d;
            float* dst[2] = {dk + j * lddkv + (kv0 + kv) * d, dv + j * lddkv + (kv0 + kv) * d};
            for (int part = 0; part < 2; ++part, mine += len * d) {
              if (g == 0) {
                std::copy_n(mine, d, dst[part]);
              } else {
                t.axpy(d, 1.0f, mine, dst[part]);
              }
            }
          }
        }
      }
    });
  }
}

}  // namespace edgewise::kernels
