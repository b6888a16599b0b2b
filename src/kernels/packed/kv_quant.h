// Keys and values of a cache in fp16, int8 or int4, and attention of one query straight on them.
//
// A row is what one token adds: `heads` heads, one after the other, each
//   kF16   head_dim halves
//   kInt8  fp16 scale, head_dim signed bytes:           x = scale c
//   kInt4  fp16 scale, fp16 min, ceil(head_dim / 2) bytes, element i in the low and element
//          i + ceil(head_dim / 2) in the high nibble of byte i:  x = scale c + min
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/attention.h"

namespace edgewise::kernels {

// On disk by value: never renumber.
enum class KvType : uint8_t { kF16 = 0, kInt8 = 1, kInt4 = 2 };

int64_t KvHeadBytes(KvType type, int64_t head_dim);
inline int64_t KvRowBytes(KvType type, int64_t heads, int64_t head_dim) {
  return heads * KvHeadBytes(type, head_dim);
}

// x [rows, heads * head_dim] with row stride ldx -> rows of KvRowBytes each. Values that are not
// finite, or too large for the row's fp16 numbers, make the head's scale (kF16: the element) not
// finite, so that they are not lost in silence.
void KvEncode(ExecContext& ctx, KvType type, int64_t rows, int64_t heads, int64_t head_dim,
              const float* x, int64_t ldx, uint8_t* out);
// The other way round: out [rows, heads * head_dim].
void KvDecode(ExecContext& ctx, KvType type, int64_t rows, int64_t heads, int64_t head_dim,
              const uint8_t* rows_in, float* out);

// Attention of one query over the cached rows [first, end): q [q_heads * head_dim], k and v are row
// 0 of the cache (shape.kv_heads heads a row), out [q_heads * head_dim]. first < end.
void KvAttention(ExecContext& ctx, const AttentionShape& shape, KvType type, const float* q,
                 int64_t first, int64_t end, const uint8_t* k, const uint8_t* v, float* out);

}  // namespace edgewise::kernels
