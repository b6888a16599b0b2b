// AdamW with decoupled weight decay (arXiv 1711.05101), as torch.optim.AdamW computes it.
#pragma once

#include <cstdint>

#include "exec/context.h"

namespace edgewise::kernels {

struct AdamWParams {
  float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0;
  int64_t step = 1;         // 1 for the first update
  float grad_scale = 1.0f;  // multiplies the gradient first (clipping)
};

// param, m, v [count] updated in place: p *= 1 - lr wd; m, v moments; p -= lr mhat / (sqrt(vhat) +
// eps).
void AdamWStep(ExecContext& ctx, const AdamWParams& params, int64_t count, float* param,
               const float* grad, float* m, float* v);

}  // namespace edgewise::kernels
