// Causal grouped-query attention in tiles with an online softmax (FlashAttention, arXiv
// 2205.14135): no [T, T] matrix is ever in memory.
#pragma once

#include <cstdint>

#include "exec/context.h"

namespace edgewise::kernels {

struct AttentionShape {
  int64_t q_heads = 0;
  int64_t kv_heads = 0;  // divides q_heads; query head h uses kv head h / (q_heads / kv_heads)
  int64_t head_dim = 0;
  float scale = 0;    // of q k^T, usually head_dim^-0.5
  float softcap = 0;  // > 0: scores become softcap tanh(score / softcap) (Gemma 2)
};

// What each query sees: query row t (0-based in this call) sees the keys first_key[t] ..
// q_offset+t, both included. A packed batch is one stream of documents: first_key[t] is the start
// of t's document (or of its sliding window, when later), so no document sees another.
struct AttentionMask {
  const int32_t* first_key = nullptr;  // [q_len], non-decreasing, first_key[t] <= q_offset + t
  int64_t q_offset = 0;                // key index of query row 0 (length of the cache before it)
};

// q [q_len, q_heads*D] with row stride ldq; k, v [kv_len, kv_heads*D] with row stride ldkv;
// out [q_len, q_heads*D] with ldo; lse [q_heads, q_len] log-sum-exp of each row's scores, or null.
void AttentionForward(ExecContext& ctx, const AttentionShape& shape, const AttentionMask& mask,
                      int64_t q_len, const float* q, int64_t ldq, const float* k, const float* v,
                      int64_t ldkv, float* out, int64_t ldo, float* lse);

// Gradients for q_offset = 0, kv_len = q_len. dq, dk, dv are overwritten; strides as in forward.
void AttentionBackward(ExecContext& ctx, const AttentionShape& shape, const AttentionMask& mask,
                       int64_t len, const float* q, int64_t ldq, const float* k, const float* v,
                       int64_t ldkv, const float* out, const float* dout, int64_t ldo,
                       const float* lse, float* dq, int64_t lddq, float* dk, float* dv,
                       int64_t lddkv);

}  // namespace edgewise::kernels
