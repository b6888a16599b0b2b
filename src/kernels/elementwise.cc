#include "kernels/elementwise.h"

#include <atomic>
#include <vector>

#include "kernels/kernel_table.h"
#include "kernels/ref/gated.h"
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
    RmsNormRows(ctx.isa(), end - begin, n, eps, plus_one, x + begin * n, weight, y + begin * n,
                rstd == nullptr ? nullptr : rstd + begin);
  });
}

void RmsNormRows(Isa isa, int64_t rows, int64_t n, float eps, bool plus_one, const float* x,
                 const float* weight, float* y, float* rstd) {
  TableFor(isa).rms_norm(rows, n, eps, plus_one, x, weight, y, rstd);
}

void RmsNormBackward(ExecContext& ctx, int64_t rows, int64_t n, bool plus_one, const float* x,
                     const float* weight, const float* rstd, const float* dy, float* dx,
                     bool accumulate_dx, float* dweight) {
  const KernelTable& t = TableFor(ctx.isa());
  // First, because dx may take the place of dy. Cut by columns: each sum runs over the rows in
  // their order.
  if (dweight != nullptr) {
    ctx.ParallelFor(n, kColumnGrain, [&](int64_t begin, int64_t end, int) {
      t.rms_norm_weight_vjp(rows, end - begin, n, x + begin, rstd, dy + begin, dweight + begin);
    });
  }
  ctx.ParallelFor(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    t.rms_norm_vjp(end - begin, n, plus_one, x + begin * n, weight, rstd + begin, dy + begin * n,
                   dx + begin * n, accumulate_dx);
  });
}

void RopeApply(ExecContext& ctx, int64_t rows, int64_t heads, int64_t head_dim, float* x,
               int64_t ldx, const int32_t* positions, const float* cos_table,
               const float* sin_table, bool inverse) {
  const KernelTable& t = TableFor(ctx.isa());
  ctx.ParallelFor(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    t.rope(end - begin, heads, head_dim, x + begin * ldx, ldx, positions + begin, cos_table,
           sin_table, inverse);
  });
}

void GatedForward(ExecContext& ctx, Activation act, int64_t count, const float* gate,
                  const float* up, float* out) {
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    GatedRows(ctx.isa(), act, end - begin, gate + begin, up + begin, out + begin);
  });
}

void GatedRows(Isa isa, Activation act, int64_t count, const float* gate, const float* up,
               float* out) {
  if (act == Activation::kSilu) {
    TableFor(isa).swiglu(count, gate, up, out);
  } else if (act == Activation::kGeluTanh) {
    TableFor(isa).geglu(count, gate, up, out);
  } else {
    ref::Gated<float>(act, count, gate, up, out);
  }
}

void GatedBackward(ExecContext& ctx, Activation act, int64_t count, const float* gate,
                   const float* up, const float* dout, float* dgate, float* dup) {
  const KernelTable& t = TableFor(ctx.isa());
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    const int64_t n = end - begin;
    if (act == Activation::kSilu) {
      t.swiglu_vjp(n, gate + begin, up + begin, dout + begin, dgate + begin, dup + begin);
    } else if (act == Activation::kGeluTanh) {
      t.geglu_vjp(n, gate + begin, up + begin, dout + begin, dgate + begin, dup + begin);
    } else {
      ref::GatedVjp<float>(act, n, gate + begin, up + begin, dout + begin, dgate + begin,
                           dup + begin);
    }
  });
}

void EmbeddingForward(ExecContext& ctx, int64_t tokens, const int32_t* ids, const WeightRef& table,
                      float scale, float* out) {
  const KernelTable& t = TableFor(ctx.isa());
  ctx.ParallelFor(tokens, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) WeightRowsToF32(table, ids[i], 1, out + i * table.cols);
    if (scale != 1.0f) t.scale((end - begin) * table.cols, scale, out + begin * table.cols);
  });
}

void EmbeddingBackward(ExecContext& ctx, int64_t tokens, const int32_t* ids, int64_t vocab,
                       int64_t hidden, float scale, const float* dout, float* dtable) {
  static_cast<void>(vocab);
  const KernelTable& t = TableFor(ctx.isa());
  // Cut by columns: tokens that share an id are then added in the order of t by one thread.
  ctx.ParallelFor(hidden, kColumnGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = 0; i < tokens; ++i) {
      t.axpy(end - begin, scale, dout + i * hidden + begin, dtable + ids[i] * hidden + begin);
    }
  });
}

void AddInPlace(ExecContext& ctx, int64_t count, const float* x, float* y) {
  const KernelTable& t = TableFor(ctx.isa());
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    t.axpy(end - begin, 1.0f, x + begin, y + begin);
  });
}

double SumSquares(ExecContext& ctx, int64_t count, const float* x) {
  const int64_t blocks = (count + kElementGrain - 1) / kElementGrain;
  std::vector<double> partial(static_cast<size_t>(blocks));
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    constexpr int kChains = 8;  // independent, so that additions overlap
    double sums[kChains] = {};
    int64_t i = begin;
    for (; i + kChains <= end; i += kChains) {
      for (int c = 0; c < kChains; ++c) {
        const double v = x[i + c];
        sums[c] += v * v;
      }
    }
    for (; i < end; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
    double sum = 0;
    for (double s : sums) sum += s;
    partial[static_cast<size_t>(begin / kElementGrain)] = sum;
  });
  double sum = 0;
  for (double p : partial) sum += p;
  return sum;
}

bool AllFinite(ExecContext& ctx, int64_t count, const float* x) {
  const KernelTable& t = TableFor(ctx.isa());
  std::atomic<bool> finite{true};
  ctx.ParallelFor(count, kElementGrain, [&](int64_t begin, int64_t end, int) {
    if (!t.finite(end - begin, x + begin)) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

}  // namespace edgewise::kernels
