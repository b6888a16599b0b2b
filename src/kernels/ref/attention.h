// The specification of causal grouped-query attention with document masks: one row of scores at a
// time, plain softmax.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace edgewise::kernels::ref {

// score(t, j) = cap(scale q_t . k_j); cap(s) = softcap tanh(s / softcap) when softcap > 0.
// out_t = sum_j softmax_j(score) v_j over the keys first_key[t] .. q_offset + t.
template <typename T>
void Attention(const AttentionShape& shape, const AttentionMask& mask, int64_t q_len, const T* q,
               int64_t ldq, const T* k, const T* v, int64_t ldkv, T* out, int64_t ldo, T* lse) {
  using std::exp;
  using std::log;
  using std::real;
  using std::tanh;
  const int64_t d = shape.head_dim, group = shape.q_heads / shape.kv_heads;
  for (int64_t h = 0; h < shape.q_heads; ++h) {
    const int64_t kv = h / group * d;
    for (int64_t t = 0; t < q_len; ++t) {
      const int64_t first = mask.first_key[t], last = mask.q_offset + t;
      std::vector<T> score(static_cast<size_t>(last - first + 1));
      T max = 0;
      for (int64_t j = first; j <= last; ++j) {
        T s = 0;
        for (int64_t i = 0; i < d; ++i) s += q[t * ldq + h * d + i] * k[j * ldkv + kv + i];
        s *= T(shape.scale);
        if (shape.softcap > 0) s = T(shape.softcap) * tanh(s / T(shape.softcap));
        score[static_cast<size_t>(j - first)] = s;
        if (j == first || real(s) > real(max)) max = s;
      }
      T sum = 0;
      for (T& s : score) sum += s = exp(s - max);
      for (int64_t i = 0; i < d; ++i) {
        T o = 0;
        for (int64_t j = first; j <= last; ++j) {
          o += score[static_cast<size_t>(j - first)] * v[j * ldkv + kv + i];
        }
        out[t * ldo + h * d + i] = o / sum;
      }
      if (lse != nullptr) lse[h * q_len + t] = max + log(sum);
    }
  }
}

// With p = exp(score - lse), D_t = dout_t . out_t and dscore = p (dout_t . v_j - D_t) cap':
// dq_t = scale sum_j dscore k_j; dk_j = scale sum_t dscore q_t; dv_j = sum_t p dout_t.
// dq, dk, dv are overwritten; q_offset = 0.
template <typename T>
void AttentionVjp(const AttentionShape& shape, const AttentionMask& mask, int64_t len, const T* q,
                  int64_t ldq, const T* k, const T* v, int64_t ldkv, const T* out, const T* dout,
                  int64_t ldo, const T* lse, T* dq, int64_t lddq, T* dk, T* dv, int64_t lddkv) {
  using std::exp;
  using std::tanh;
  const int64_t d = shape.head_dim, group = shape.q_heads / shape.kv_heads;
  for (int64_t t = 0; t < len; ++t) {
    for (int64_t i = 0; i < shape.q_heads * d; ++i) dq[t * lddq + i] = 0;
    for (int64_t i = 0; i < shape.kv_heads * d; ++i) dk[t * lddkv + i] = dv[t * lddkv + i] = 0;
  }
  for (int64_t h = 0; h < shape.q_heads; ++h) {
    const int64_t hq = h * d, kv = h / group * d;
    for (int64_t t = 0; t < len; ++t) {
      T delta = 0;
      for (int64_t i = 0; i < d; ++i) delta += dout[t * ldo + hq + i] * out[t * ldo + hq + i];
      for (int64_t j = mask.first_key[t]; j <= t; ++j) {
        T s = 0, dp = 0;
        for (int64_t i = 0; i < d; ++i) {
          s += q[t * ldq + hq + i] * k[j * ldkv + kv + i];
          dp += dout[t * ldo + hq + i] * v[j * ldkv + kv + i];
        }
        s *= T(shape.scale);
        T slope = 1;
        if (shape.softcap > 0) {
          const T th = tanh(s / T(shape.softcap));
          s = T(shape.softcap) * th;
          slope = T(1) - th * th;
        }
        const T p = exp(s - lse[h * len + t]);
        const T ds = p * (dp - delta) * slope * T(shape.scale);
        for (int64_t i = 0; i < d; ++i) {
          dq[t * lddq + hq + i] += ds * k[j * ldkv + kv + i];
          dk[j * lddkv + kv + i] += ds * q[t * ldq + hq + i];
          dv[j * lddkv + kv + i] += p * dout[t * ldo + hq + i];
        }
      }
    }
  }
}

}  // namespace edgewise::kernels::ref
