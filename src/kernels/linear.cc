#include "kernels/linear.h"

#include <algorithm>

#include "kernels/packed/linear.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kRowGrain = 16;
constexpr int64_t kColumnGrain = 64;

}  // namespace

void LinearForward(ExecContext& ctx, int64_t m, const float* x, int64_t ldx, const WeightRef& w,
                   const float* bias, float* y, int64_t ldy, Accumulate acc) {
  if (w.packed != nullptr) {
    return PackedForward(ctx, m, x, ldx, *w.packed, {0, w.rows}, bias, y, ldy, acc);
  }
  MatMulNT(ctx, m, w.rows, w.cols, 1.0f, x, ldx, w, y, ldy, acc);
  if (bias == nullptr) return;
  ctx.ParallelFor(m, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < w.rows; ++j) y[i * ldy + j] += bias[j];
    }
  });
}

void LinearForwardMany(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                       std::span<const LinearTarget> targets) {
  const bool shared =
      targets.size() <= kMaxTargets && std::ranges::all_of(targets, [&](const LinearTarget& t) {
        return t.w.packed != nullptr && targets[0].w.packed != nullptr && t.w.rows > 0 &&
               SharesInput(*t.w.packed, *targets[0].w.packed);
      });
  if (!shared) {
    for (const LinearTarget& t : targets) {
      LinearForward(ctx, m, x, ldx, t.w, t.bias, t.y, t.ldy);
    }
    return;
  }
  PackedTarget packed[kMaxTargets];
  for (size_t i = 0; i < targets.size(); ++i) {
    const LinearTarget& t = targets[i];
    packed[i] = {t.w.packed, {0, t.w.rows}, t.bias, t.y, t.ldy, Accumulate::kOverwrite};
  }
  PackedForwardMany(ctx, m, x, ldx, {packed, targets.size()});
}

void LinearBackwardInput(ExecContext& ctx, int64_t m, const float* dy, int64_t lddy,
                         const WeightRef& w, float* dx, int64_t lddx, Accumulate acc,
                         const LinearBackwardOptions& options) {
  if (w.packed != nullptr) {
    return PackedBackwardInput(ctx, m, dy, lddy, *w.packed, {0, w.rows}, dx, lddx, acc, options);
  }
  MatMulNN(ctx, m, w.cols, w.rows, 1.0f, dy, lddy, w, dx, lddx, acc);
}

void LinearBackwardWeight(ExecContext& ctx, int64_t m, int64_t out, int64_t in, const float* dy,
                          int64_t lddy, const float* x, int64_t ldx, float* dw, float* dbias) {
  MatMulTN(ctx, out, in, m, 1.0f, dy, lddy, x, ldx, dw, in, Accumulate::kAdd);
  if (dbias == nullptr) return;
  ctx.ParallelFor(out, kColumnGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = begin; j < end; ++j) dbias[j] += dy[i * lddy + j];
    }
  });
}

void LoraForward(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r, float scale,
                 const float* x, int64_t ldx, const float* a, const float* b, float* xa, float* y,
                 int64_t ldy) {
  MatMulNT(ctx, m, r, in, 1.0f, x, ldx, WeightRef::Dense(a, r, in), xa, r);
  MatMulNT(ctx, m, out, r, scale, xa, r, WeightRef::Dense(b, out, r), y, ldy, Accumulate::kAdd);
}

void LoraBackward(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r, float scale,
                  const float* x, int64_t ldx, const float* xa, const float* a, const float* b,
                  const float* dy, int64_t lddy, float* dxa, float* da, float* db, float* dx,
                  int64_t lddx) {
  MatMulNN(ctx, m, r, out, 1.0f, dy, lddy, WeightRef::Dense(b, out, r), dxa, r);
  MatMulTN(ctx, r, in, m, scale, dxa, r, x, ldx, da, in, Accumulate::kAdd);
  MatMulTN(ctx, out, r, m, scale, dy, lddy, xa, r, db, r, Accumulate::kAdd);
  if (dx == nullptr) return;
  MatMulNN(ctx, m, in, r, scale, dxa, r, WeightRef::Dense(a, r, in), dx, lddx, Accumulate::kAdd);
}

}  // namespace edgewise::kernels
