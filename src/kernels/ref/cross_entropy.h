// The specification of the LM head with cross-entropy: logits of one row at a time.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace edgewise::kernels::ref {

template <typename T>
struct HeadLossProblem {
  int64_t tokens = 0, hidden_size = 0, vocab = 0;
  const T* hidden = nullptr;         // [tokens, H]
  const T* head = nullptr;           // [vocab, H]
  const int32_t* targets = nullptr;  // [tokens], < 0: no label
  const T* weights = nullptr;        // [tokens] or null
  T softcap = 0, grad_scale = 0;
  int64_t lora_r = 0;
  T lora_scale = 0;
  const T* lora_a = nullptr;  // [r, H]
  const T* lora_b = nullptr;  // [vocab, r]
  // Gradients, all added to; each may be null.
  T* dhidden = nullptr;
  T* dhead = nullptr;
  T* dlora_a = nullptr;
  T* dlora_b = nullptr;
  T* token_loss = nullptr;  // [tokens]
  T* logits = nullptr;      // [vocab] of the last labelled row
};

// sum_t weight_t (log sum_v exp(z_tv) - z_t,target), z = cap(h (W + lora_scale B A)^T), and the
// gradient of grad_scale times it: dz_tv = grad_scale weight_t (softmax(z_t)_v - [v = target]).
template <typename T>
T HeadLoss(const HeadLossProblem<T>& p) {
  using std::exp;
  using std::log;
  using std::real;
  using std::tanh;
  const int64_t n = p.hidden_size;
  std::vector<T> z(static_cast<size_t>(p.vocab)), slope(z);
  std::vector<T> ha(static_cast<size_t>(p.lora_r));
  T total = 0;
  for (int64_t t = 0; t < p.tokens; ++t) {
    if (p.token_loss != nullptr) p.token_loss[t] = 0;
    if (p.targets[t] < 0) continue;
    const T* h = p.hidden + t * n;
    const T weight = p.weights != nullptr ? p.weights[t] : T(1);
    for (int64_t r = 0; r < p.lora_r; ++r) {
      T sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += h[i] * p.lora_a[r * n + i];
      ha[static_cast<size_t>(r)] = sum;
    }
    T max = 0;
    for (int64_t v = 0; v < p.vocab; ++v) {
      T sum = 0, low = 0;
      for (int64_t i = 0; i < n; ++i) sum += h[i] * p.head[v * n + i];
      for (int64_t r = 0; r < p.lora_r; ++r) {
        low += ha[static_cast<size_t>(r)] * p.lora_b[v * p.lora_r + r];
      }
      sum += p.lora_scale * low;
      T d = 1;
      if (real(p.softcap) > 0) {
        const T th = tanh(sum / p.softcap);
        sum = p.softcap * th;
        d = T(1) - th * th;
      }
      z[static_cast<size_t>(v)] = sum;
      slope[static_cast<size_t>(v)] = d;
      if (v == 0 || real(sum) > real(max)) max = sum;
    }
    for (int64_t v = 0; p.logits != nullptr && v < p.vocab; ++v) {
      p.logits[v] = z[static_cast<size_t>(v)];
    }
    T denominator = 0;
    for (T s : z) denominator += exp(s - max);
    const T lse = max + log(denominator);
    const T loss = weight * (lse - z[static_cast<size_t>(p.targets[t])]);
    total += loss;
    if (p.token_loss != nullptr) p.token_loss[t] = loss;
    if (p.grad_scale == T(0)) continue;
    for (int64_t v = 0; v < p.vocab; ++v) {
      const T prob = exp(z[static_cast<size_t>(v)] - lse);
      const T dz = p.grad_scale * weight * (prob - (v == p.targets[t] ? T(1) : T(0))) *
                   slope[static_cast<size_t>(v)];
      for (int64_t i = 0; i < n; ++i) {
        T w = p.head[v * n + i];
        for (int64_t r = 0; r < p.lora_r; ++r) {
          w += p.lora_scale * p.lora_b[v * p.lora_r + r] * p.lora_a[r * n + i];
        }
        if (p.dhidden != nullptr) p.dhidden[t * n + i] += dz * w;
        if (p.dhead != nullptr) p.dhead[v * n + i] += dz * h[i];
      }
      for (int64_t r = 0; r < p.lora_r; ++r) {
        const T b = p.lora_b[v * p.lora_r + r];
        if (p.dlora_b != nullptr) {
          p.dlora_b[v * p.lora_r + r] += p.lora_scale * dz * ha[static_cast<size_t>(r)];
        }
        for (int64_t i = 0; p.dlora_a != nullptr && i < n; ++i) {
          p.dlora_a[r * n + i] += p.lora_scale * dz * b * h[i];
        }
      }
    }
  }
  return total;
}

}  // namespace edgewise::kernels::ref
