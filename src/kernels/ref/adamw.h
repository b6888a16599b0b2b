// The specification of AdamW (arXiv 1711.05101, algorithm 2, as torch.optim.AdamW).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/adamw.h"

namespace edgewise::kernels::ref {

template <typename T>
void AdamW(const AdamWParams& p, int64_t count, T* param, const T* grad, T* m, T* v) {
  const T correction1 = T(1) - std::pow(T(p.beta1), T(p.step));
  const T correction2 = T(1) - std::pow(T(p.beta2), T(p.step));
  for (int64_t i = 0; i < count; ++i) {
    const T g = grad[i] * T(p.grad_scale);
    m[i] = T(p.beta1) * m[i] + (T(1) - T(p.beta1)) * g;
    v[i] = T(p.beta2) * v[i] + (T(1) - T(p.beta2)) * g * g;
    param[i] *= T(1) - T(p.lr) * T(p.weight_decay);
    param[i] -= T(p.lr) * (m[i] / correction1) / (std::sqrt(v[i] / correction2) + T(p.eps));
  }
}

}  // namespace edgewise::kernels::ref
