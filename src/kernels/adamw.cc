#include "kernels/adamw.h"

#include "kernels/ref/adamw.h"

namespace edgewise::kernels {

void AdamWStep(ExecContext& ctx, const AdamWParams& params, int64_t count, float* param,
               const float* grad, float* m, float* v) {
  constexpr int64_t kGrain = 1 << 14;
  ctx.ParallelFor(count, kGrain, [&](int64_t begin, int64_t end, int) {
    ref::AdamW<float>(params, end - begin, param + begin, grad + begin, m + begin, v + begin);
  });
}

}  // namespace edgewise::kernels
