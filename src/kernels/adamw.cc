#include "kernels/adamw.h"

#include <cmath>

#include "kernels/kernel_table.h"

namespace edgewise::kernels {

void AdamWStep(ExecContext& ctx, const AdamWParams& params, int64_t count, float* param,
               const float* grad, float* m, float* v) {
  const KernelTable& t = TableFor(ctx.isa());
  const double b1 = params.beta1, b2 = params.beta2, lr = params.lr;
  const auto step = static_cast<double>(params.step);
  AdamWConstants c;
  c.grad_scale = params.grad_scale;
  c.beta1 = params.beta1;
  c.one_minus_beta1 = static_cast<float>(1 - b1);
  c.beta2 = params.beta2;
  c.one_minus_beta2 = static_cast<float>(1 - b2);
  c.decay = static_cast<float>(1 - lr * params.weight_decay);
  c.step_size = static_cast<float>(lr / (1 - std::pow(b1, step)));
  c.inv_sqrt_correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(b2, step)));
  c.eps = params.eps;
  constexpr int64_t kGrain = 1 << 14;
  ctx.ParallelFor(count, kGrain, [&](int64_t begin, int64_t end, int) {
    t.adamw(c, end - begin, param + begin, grad + begin, m + begin, v + begin);
  });
}

}  // namespace edgewise::kernels
