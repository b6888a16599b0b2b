#include "kernels/packed/kv_quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/kernel_table.h"
#include "kernels/packed/int8_table.h"
#include "tensor/dtype.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kRowGrain = 16;
// Keys whose scores are made before their values are added.
constexpr int64_t kBlock = 64;

void PutHalf(uint8_t* to, float x) {
  const uint16_t half = F32ToF16(x);
  std::memcpy(to, &half, 2);
}
float GetHalf(const uint8_t* from) {
  uint16_t half;
  std::memcpy(&half, from, 2);
  return F16ToF32(half);
}

// Round(x / scale) for the scale that is stored, clamped to the codes there are.
int Code(float x, float inverse, float low, float high) {
  const float scaled = x * inverse;
  return scaled >= low && scaled <= high ? static_cast<int>(std::nearbyint(scaled))
                                         : static_cast<int>(scaled > high ? high : low);
}

void EncodeHead(KvType type, int64_t n, const float* x, uint8_t* out) {
  if (type == KvType::kF16) {
    for (int64_t i = 0; i < n; ++i) PutHalf(out + 2 * i, x[i]);
    return;
  }
  float lo = x[0], hi = x[0];
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    lo = std::min(lo, x[i]);
    hi = std::max(hi, x[i]);
    finite = finite && std::isfinite(x[i]);
  }
  const bool int8 = type == KvType::kInt8;
  const float range = int8 ? std::max(std::fabs(lo), std::fabs(hi)) / 127.0f : (hi - lo) / 15.0f;
  PutHalf(out, finite ? range : std::numeric_limits<float>::quiet_NaN());
  const float scale = GetHalf(out);
  const float inverse = finite && scale > 0 ? 1.0f / scale : 0.0f;
  if (int8) {
    for (int64_t i = 0; i < n; ++i) {
      out[2 + i] = static_cast<uint8_t>(finite ? Code(x[i], inverse, -127, 127) : 0);
    }
    return;
  }
  PutHalf(out + 2, finite ? lo : 0.0f);
  const float min = GetHalf(out + 2);
  const int64_t half = (n + 1) / 2;
  for (int64_t i = 0; i < half; ++i) {
    const int low = finite ? Code(x[i] - min, inverse, 0, 15) : 0;
    const int high = finite && i + half < n ? Code(x[i + half] - min, inverse, 0, 15) : 0;
    out[4 + i] = static_cast<uint8_t>(low | high << 4);
  }
}

}  // namespace

int64_t KvHeadBytes(KvType type, int64_t n) {
  return type == KvType::kF16 ? 2 * n : type == KvType::kInt8 ? 2 + n : 4 + (n + 1) / 2;
}

void KvEncode(ExecContext& ctx, KvType type, int64_t rows, int64_t heads, int64_t head_dim,
              const float* x, int64_t ldx, uint8_t* out) {
  const int64_t bytes = KvHeadBytes(type, head_dim);
  const auto encode = [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        EncodeHead(type, head_dim, x + r * ldx + h * head_dim, out + (r * heads + h) * bytes);
      }
    }
  };
  if (rows <= kRowGrain) return encode(0, rows, 0);
  ctx.ParallelFor(rows, kRowGrain, encode);
}

void KvDecode(ExecContext& ctx, KvType type, int64_t rows, int64_t heads, int64_t head_dim,
              const uint8_t* in, float* out) {
  const Int8Table& table = Int8TableFor(ctx.isa());
  const int64_t bytes = KvHeadBytes(type, head_dim);
  const auto decode = [&](int64_t begin, int64_t end, int) {
    std::fill(out + begin * heads * head_dim, out + end * heads * head_dim, 0.0f);
    for (int64_t i = begin * heads; i < end * heads; ++i) {
      table.kv_axpy(static_cast<int>(type), head_dim, in + i * bytes, 1.0f, out + i * head_dim);
    }
  };
  if (rows <= kRowGrain) return decode(0, rows, 0);
  ctx.ParallelFor(rows, kRowGrain, decode);
}

void KvAttention(ExecContext& ctx, const AttentionShape& shape, KvType type, const float* q,
                 int64_t first, int64_t end, const uint8_t* k, const uint8_t* v, float* out) {
  const Int8Table& table = Int8TableFor(ctx.isa());
  const KernelTable& dense = TableFor(ctx.isa());
  const int64_t n = shape.head_dim, group = shape.q_heads / shape.kv_heads;
  const int64_t head_bytes = KvHeadBytes(type, n), row_bytes = shape.kv_heads * head_bytes;
  const auto kind = static_cast<int>(type);
  ctx.ParallelFor(shape.kv_heads, 1, [&](int64_t kv, int64_t, int) {
    float scores[kBlock];
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
      const float* query = q + h * n;
      float* acc = out + h * n;
      float query_sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        query_sum += query[i];
        acc[i] = 0;
      }
      float max = -std::numeric_limits<float>::infinity();
      double sum = 0;
      for (int64_t j0 = first; j0 < end; j0 += kBlock) {
        const int64_t count = std::min(kBlock, end - j0);
        float top = max;
        for (int64_t j = 0; j < count; ++j) {
          const uint8_t* key = k + (j0 + j) * row_bytes + kv * head_bytes;
          float s = shape.scale * table.kv_dot(kind, n, key, query, query_sum);
          if (shape.softcap > 0) s = shape.softcap * std::tanh(s / shape.softcap);
          scores[j] = s;
          // A score that is not a number must reach the result.
          top = std::isnan(s) ? s : std::max(top, s);
        }
        const float correction = max == top ? 1.0f : std::exp(max - top);
        max = top;
        for (int64_t j = 0; j < count; ++j) scores[j] -= max;
        dense.exp(count, scores, scores);
        if (correction != 1.0f) dense.scale(n, correction, acc);
        sum *= correction;
        for (int64_t j = 0; j < count; ++j) {
          sum += scores[j];
          table.kv_axpy(kind, n, v + (j0 + j) * row_bytes + kv * head_bytes, scores[j], acc);
        }
      }
      dense.scale(n, static_cast<float>(1.0 / sum), acc);
    }
  });
}

}  // namespace edgewise::kernels
