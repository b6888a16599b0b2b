#include "model/fake_quant.h"

#include <algorithm>
#include <cmath>

namespace edgewise::model {
namespace {

constexpr float kEps = 1e-6f;  // as released: in the scale and in the way back

}  // namespace

void FakeQuantize(ExecContext& ctx, int bits, int64_t rows, int64_t n, const float* x, float* out) {
  const auto levels = static_cast<float>((int64_t{1} << (bits - 1)) - 1);
  ctx.ParallelFor(rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = x + r * n;
      float* to = out + r * n;
      float top = 0;
      for (int64_t i = 0; i < n; ++i) top = std::max(top, std::fabs(from[i]));
      const float scale = levels / (top + kEps), back = 1.0f / (scale + kEps);
      for (int64_t i = 0; i < n; ++i) to[i] = std::nearbyint(from[i] * scale) * back;
    }
  });
}

void StraightThrough(ExecContext& ctx, int64_t count, const float* x, const float* dy, float* dx,
                     kernels::Accumulate acc) {
  const bool add = acc == kernels::Accumulate::kAdd;
  ctx.ParallelFor(count, 1 << 14, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float passed = std::fabs(x[i]) < kStraightThroughLimit ? dy[i] : 0.0f;
      dx[i] = add ? dx[i] + passed : passed;
    }
  });
}

}  // namespace edgewise::model
