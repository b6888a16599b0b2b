#include <cmath>

#include "kernels/loss.h"

namespace edgewise::kernels {

void LogSoftmaxAt(ExecContext& ctx, int64_t rows, int64_t vocab, const float* logits,
                  const int32_t* targets, double* logprob) {
  ctx.ParallelFor(rows, 1, [&](int64_t r, int64_t, int) {
    const float* z = logits + r * vocab;
    double max = z[0];
    for (int64_t v = 1; v < vocab; ++v) max = z[v] > max ? z[v] : max;
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(z[v] - max);
    logprob[r] = z[targets[r]] - max - std::log(sum);
  });
}

}  // namespace edgewise::kernels
