#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ref/gated.h"
#include "kernels/ref/rmsnorm.h"
#include "kernels/ref/rope.h"
#include "kernels/weight_rows.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kRowGrain = 8;
constexpr int64_t kElementGrain = 1 << 14;
constexpr int64_t kColumnGrain = 64;

}  // namespace

void RmsNormForward(ExecContext& ctx, int64_t rows, int64_t n, float eps, bool plus_one,
                    const float* x, const float* weight, float* y, float* rstd) {
  ctx.ParallelFor(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float scale;
      ref::RmsNorm<float>(1, n, eps, plus_one, x + r * n, weight, y + r * n, &scale);
      if (rstd != nullptr) rstd[r] = scale;
    }
  });
}

void RmsNormBackward(ExecContext& ctx, int64_t rows, int64_t n, bool plus_one, const float* x,
                     const float* weight, const float* rstd, const float* dy, float* dx,
                     bool accumulate_dx, float* dweight) {
  if (dweight != nullptr) {
    ctx.ParallelFor(n, kColumnGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = begin; i < end; ++i) dweight[i] += dy[r * n + i] * x[r * n + i] * rstd[r];
      }
    });
  }
  ctx.ParallelFor(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(n));
    for (int64_t r = begin; r < end; ++r) {
      std::fill(row.begin(), row.end(), 0.0f);
      ref::RmsNormVjp<float>(1, n, plus_one, x + r * n, weight, rstd + r, dy + r * n, row.data(),
                             nullptr);
      for (int64_t i = 0; i < n; ++i) {
        dx[r * n + i] = (accumulate_dx ? dx[r * n + i] : 0.0f) + row[static_cast<size_t>(i)];
      }
    }
  });
}

void RopeApply(ExecContext& ctx, int64_t rows, int64_t heads, int64_t head_dim, float* x,
               int64_t ldx, const int32_t* positions, const float* cos_table,
               const float* sin_table, bool inverse) {
  ctx.ParallelFor(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    ref::Rope<float>(end - begin, heads, head_dim, x + begin * ldx, ldx, positions + begin,
                     cos_table, sin_table, inverse);
  });
}

void GatedForward(ExecContext& ctx, Activation act, int64_t count, const float* gate,
                  const float* up, float* out) {
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    ref::Gated<float>(act, end - begin, gate + begin, up + begin, out + begin);
  });
}

void GatedBackward(ExecContext& ctx, Activation act, int64_t count, const float* gate,
                   const float* up, const float* dout, float* dgate, float* dup) {
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    ref::GatedVjp<float>(act, end - begin, gate + begin, up + begin, dout + begin, dgate + begin,
                         dup + begin);
  });
}

void EmbeddingForward(ExecContext& ctx, int64_t tokens, const int32_t* ids, const WeightRef& table,
                      float scale, float* out) {
  ctx.ParallelFor(tokens, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = out + t * table.cols;
      WeightRowsToF32(table, ids[t], 1, row);
      if (scale == 1.0f) continue;
      for (int64_t i = 0; i < table.cols; ++i) row[i] *= scale;
    }
  });
}

void EmbeddingBackward(ExecContext& ctx, int64_t tokens, const int32_t* ids, int64_t vocab,
                       int64_t hidden, float scale, const float* dout, float* dtable) {
  static_cast<void>(vocab);
  // Cut by columns: tokens that share an id are then added in the order of t by one thread.
  ctx.ParallelFor(hidden, kColumnGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = dtable + ids[t] * hidden;
      for (int64_t i = begin; i < end; ++i) row[i] += scale * dout[t * hidden + i];
    }
  });
}

void AddInPlace(ExecContext& ctx, int64_t count, const float* x, float* y) {
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) y[i] += x[i];
  });
}

double SumSquares(ExecContext& ctx, int64_t count, const float* x) {
  const int64_t blocks = (count + kElementGrain - 1) / kElementGrain;
  std::vector<double> partial(static_cast<size_t>(blocks));
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += static_cast<double>(x[i]) * x[i];
    partial[static_cast<size_t>(begin / kElementGrain)] = sum;
  });
  double sum = 0;
  for (double p : partial) sum += p;
  return sum;
}

bool AllFinite(ExecContext& ctx, int64_t count, const float* x) {
  std::atomic<bool> finite{true};
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      if (!std::isfinite(x[i])) {
        finite.store(false, std::memory_order_relaxed);
        return;
      }
    }
  });
  return finite.load();
}

}  // namespace edgewise::kernels
