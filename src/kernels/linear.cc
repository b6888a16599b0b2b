#include "kernels/linear.h"

#include <algorithm>

#include "base/aligned_buffer.h"
#include "kernels/gemm_driver.h"
#include "kernels/packed/linear.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kRowGrain = 16;
constexpr int64_t kColumnGrain = 64;
constexpr int64_t kUnpackedRows = 256;  // of W at a time

void AddBias(ExecContext& ctx, int64_t m, int64_t columns, const float* bias, float* y,
             int64_t ldy) {
  if (bias == nullptr) return;
  ctx.ParallelFor(m, kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < columns; ++j) y[i * ldy + j] += bias[j];
    }
  });
}

// Whether a product of m rows and n columns adds the term itself: few rows and columns take other
// ways (and a bias of dense weights is added after the product).
bool Fuses(int64_t m, int64_t n, const WeightRef& w, const float* bias, const LowRank& low_rank) {
  return m > kGemmDirectRows && n > kThinColumns && low_rank.r <= kMaxLowRank && w.rows > 0 &&
         w.cols > 0 && (w.packed != nullptr || bias == nullptr);
}

// Whether all can be computed as one product of m rows.
bool ShareInput(int64_t m, std::span<const LinearTarget> targets) {
  return targets.size() <= kMaxTargets && std::ranges::all_of(targets, [&](const LinearTarget& t) {
           return t.w.packed != nullptr && targets[0].w.packed != nullptr && t.w.rows > 0 &&
                  SharesInput(*t.w.packed, *targets[0].w.packed) &&
                  (t.low_rank.r == 0 || Fuses(m, t.w.rows, t.w, t.bias, t.low_rank));
         });
}

std::span<const PackedTarget> PackedTargets(std::span<const LinearTarget> targets,
                                            PackedTarget (&packed)[kMaxTargets]) {
  for (size_t i = 0; i < targets.size(); ++i) {
    const LinearTarget& t = targets[i];
    packed[i] = {t.w.packed, {0, t.w.rows}, t.bias, t.y, t.ldy, t.acc, t.low_rank};
  }
  return {packed, targets.size()};
}

}  // namespace

void LinearForward(ExecContext& ctx, int64_t m, const float* x, int64_t ldx, const WeightRef& w,
                   const float* bias, float* y, int64_t ldy, Accumulate acc,
                   const LowRank& low_rank) {
  if (low_rank.r > 0 && !Fuses(m, w.rows, w, bias, low_rank)) {
    LinearForward(ctx, m, x, ldx, w, bias, y, ldy, acc);
    return LowRankAdd(ctx, m, w.rows, low_rank, y, ldy);
  }
  if (w.packed != nullptr) {
    return PackedForward(ctx, m, x, ldx, *w.packed, {0, w.rows}, bias, y, ldy, acc, low_rank);
  }
  MatMulNT(ctx, m, w.rows, w.cols, 1.0f, x, ldx, w, y, ldy, acc, low_rank);
  AddBias(ctx, m, w.rows, bias, y, ldy);
}

void LinearForwardExact(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                        const WeightRef& w, const float* bias, float* y, int64_t ldy,
                        Accumulate acc) {
  if (w.packed == nullptr) return LinearForward(ctx, m, x, ldx, w, bias, y, ldy, acc);
  FloatBuffer unpacked(std::min(kUnpackedRows, w.rows) * w.cols);
  for (int64_t first = 0; first < w.rows; first += kUnpackedRows) {
    const int64_t rows = std::min(kUnpackedRows, w.rows - first);
    ctx.ParallelFor(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
      w.packed->UnpackRows(first + begin, end - begin, unpacked.data() + begin * w.cols, w.cols);
    });
    MatMulNT(ctx, m, rows, w.cols, 1.0f, x, ldx, WeightRef::Dense(unpacked.data(), rows, w.cols),
             y + first, ldy, acc);
  }
  AddBias(ctx, m, w.rows, bias, y, ldy);
}

void LinearForwardMany(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                       std::span<const LinearTarget> targets) {
  if (!ShareInput(m, targets)) {
    for (const LinearTarget& t : targets) {
      LinearForward(ctx, m, x, ldx, t.w, t.bias, t.y, t.ldy, t.acc, t.low_rank);
    }
    return;
  }
  PackedTarget packed[kMaxTargets];
  PackedForwardMany(ctx, m, x, ldx, PackedTargets(targets, packed));
}

void LinearForwardMade(ExecContext& ctx, int64_t m, RowMaker make, float* x,
                       std::span<const LinearTarget> targets) {
  if (targets.empty()) return;
  if (!ShareInput(m, targets)) {
    const int64_t in = targets[0].w.cols;
    ctx.ParallelFor(m, kRowGrain,
                    [&](int64_t begin, int64_t end, int) { make(begin, end, x + begin * in); });
    return LinearForwardMany(ctx, m, x, in, targets);
  }
  PackedTarget packed[kMaxTargets];
  PackedForwardMade(ctx, m, make, PackedTargets(targets, packed));
}

void LinearBackwardInput(ExecContext& ctx, int64_t m, const float* dy, int64_t lddy,
                         const WeightRef& w, float* dx, int64_t lddx, Accumulate acc,
                         const LinearBackwardOptions& options, const LowRank& low_rank) {
  if (low_rank.r > 0 && !Fuses(m, w.cols, w, nullptr, low_rank)) {
    LinearBackwardInput(ctx, m, dy, lddy, w, dx, lddx, acc, options);
    return LowRankAdd(ctx, m, w.cols, low_rank, dx, lddx);
  }
  if (w.packed != nullptr) {
    return PackedBackwardInput(ctx, m, dy, lddy, *w.packed, {0, w.rows}, dx, lddx, acc, options,
                               low_rank);
  }
  MatMulNN(ctx, m, w.cols, w.rows, 1.0f, dy, lddy, w, dx, lddx, acc, low_rank);
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

void LowRankAdd(ExecContext& ctx, int64_t m, int64_t n, const LowRank& term, float* c,
                int64_t ldc) {
  if (term.r == 0) return;
  if (term.columns != nullptr) {
    MatMulNT(ctx, m, n, term.r, term.scale, term.in, term.r,
             WeightRef::Dense(term.columns, n, term.r), c, ldc, Accumulate::kAdd);
  } else {
    WeightRef rows = WeightRef::Dense(term.rows, term.r, n);
    rows.ld = term.ld_rows;
    MatMulNN(ctx, m, n, term.r, term.scale, term.in, term.r, rows, c, ldc, Accumulate::kAdd);
  }
}

void LoraForward(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r, float scale,
                 const float* x, int64_t ldx, const float* a, const float* b, float* xa, float* y,
                 int64_t ldy) {
  MatMulNT(ctx, m, r, in, 1.0f, x, ldx, WeightRef::Dense(a, r, in), xa, r);
  LowRankAdd(ctx, m, out, {r, scale, xa, b}, y, ldy);
}

void LoraInnerGradient(ExecContext& ctx, int64_t m, int64_t out, int64_t r, const float* dy,
                       int64_t lddy, const float* b, float* dxa) {
  MatMulNN(ctx, m, r, out, 1.0f, dy, lddy, WeightRef::Dense(b, out, r), dxa, r);
}

void LoraWeightGradients(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r,
                         float scale, const float* x, int64_t ldx, const float* xa, const float* dy,
                         int64_t lddy, const float* dxa, float* da, float* db) {
  MatMulTN(ctx, r, in, m, scale, dxa, r, x, ldx, da, in, Accumulate::kAdd);
  MatMulTN(ctx, out, r, m, scale, dy, lddy, xa, r, db, r, Accumulate::kAdd);
}

void LoraBackward(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r, float scale,
                  const float* x, int64_t ldx, const float* xa, const float* a, const float* b,
                  const float* dy, int64_t lddy, float* dxa, float* da, float* db, float* dx,
                  int64_t lddx) {
  LoraInnerGradient(ctx, m, out, r, dy, lddy, b, dxa);
  LoraWeightGradients(ctx, m, in, out, r, scale, x, ldx, xa, dy, lddy, dxa, da, db);
  if (dx == nullptr) return;
  LowRankAdd(ctx, m, in, {r, scale, dxa, nullptr, a, in}, dx, lddx);
}

}  // namespace edgewise::kernels
