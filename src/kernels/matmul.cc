#include "kernels/matmul.h"

#include <algorithm>
#include <cassert>

#include "base/checked.h"
#include "kernels/gemm_driver.h"
#include "kernels/weight_rows.h"

namespace edgewise::kernels {
namespace {

// Floats of one weight row that are read in one go when there are few rows of A.
constexpr int64_t kLongRun = 2048;

const unsigned char* At(const WeightRef& w, int64_t row, int64_t column) {
  return static_cast<const unsigned char*>(w.data) +
         (row * w.ld + column) * static_cast<int64_t>(DTypeBytes(w.dtype));
}

// C[m,n] (+)= alpha A b^T, b [n,k] fp32, n <= kThinColumns.
void ThinNT(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
            int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, Accumulate acc) {
  const KernelTable& t = TableFor(ctx.isa());
  constexpr int64_t kGrain = 32;
  ctx.ParallelFor(m, kGrain, [&](int64_t begin, int64_t end, int) {
    t.multiply_thin(end - begin, n, k, a + begin * lda, lda, b, ldb, alpha, c + begin * ldc, ldc,
                    acc == Accumulate::kAdd);
  });
}

// C[m,n] (+)= alpha A^T B for small n: the tile is taken from C^T, whose columns lie along A's
// rows.
void ThinTN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
            int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, Accumulate acc) {
  const KernelTable& t = TableFor(ctx.isa());
  const int64_t grain = RoundUp(64, t.nr);
  ctx.ParallelFor(m, grain, [&](int64_t begin, int64_t end, int worker) {
    const int64_t mm = end - begin;
    auto* packed = static_cast<float*>(ctx.Scratch(
        worker, static_cast<size_t>(grain * kGemmKBlock + kThinColumns * grain) * sizeof(float)));
    float* tile = packed + grain * kGemmKBlock;
    for (int64_t k0 = 0; k0 < k; k0 += kGemmKBlock) {
      const int64_t kk = std::min(kGemmKBlock, k - k0);
      t.pack_b(DType::kF32, a + k0 * lda + begin, lda, mm, kk, packed);
      t.multiply(n, mm, kk, ALayout::kKMajor, b + k0 * ldb, ldb, {packed, kk * t.nr, t.nr}, alpha,
                 tile, grain, /*accumulate=*/false);
      // Block by block, as Gemm does: a sum over k that comes in whole blocks is the same bits.
      const bool add = acc == Accumulate::kAdd || k0 > 0;
      for (int64_t i = 0; i < mm; ++i) {
        float* out = c + (begin + i) * ldc;
        for (int64_t j = 0; j < n; ++j) {
          out[j] = (add ? out[j] : 0.0f) + tile[j * grain + i];
        }
      }
    }
  });
}

}  // namespace

void MatMulNT(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const WeightRef& b, float* c, int64_t ldc, Accumulate acc,
              const LowRank& low_rank) {
  assert(low_rank.r == 0 || (n > kThinColumns && k > 0));
  assert(b.packed == nullptr && b.rows == n && b.cols == k);
  if (n <= kThinColumns && k > 0) {
    if (b.dtype == DType::kF32) {
      ThinNT(ctx, m, n, k, alpha, a, lda, static_cast<const float*>(b.data), b.ld, c, ldc, acc);
      return;
    }
    auto* rows = static_cast<float*>(ctx.SharedScratch(static_cast<size_t>(n * k) * sizeof(float)));
    WeightRowsToF32(b, 0, n, rows);
    return ThinNT(ctx, m, n, k, alpha, a, lda, rows, k, c, ldc, acc);
  }
  const KernelTable& t = TableFor(ctx.isa());
  Gemm(
      ctx, m, n, k, alpha, {a, lda, ALayout::kRowMajor},
      [&](int64_t n0, int64_t nn, int64_t k0, int64_t kk, float* out, uint16_t*) {
        t.pack_b_transposed(b.dtype, At(b, n0, k0), b.ld, nn, kk, out);
      },
      c, ldc, acc, {32, kLongRun}, GemmGaps::kNone, low_rank);
}

void MatMulNN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const WeightRef& b, float* c, int64_t ldc, Accumulate acc,
              const LowRank& low_rank) {
  assert(low_rank.r == 0 || (n > kThinColumns && k > 0));
  assert(b.packed == nullptr && b.rows == k && b.cols == n);
  const KernelTable& t = TableFor(ctx.isa());
  if (n <= kThinColumns && k > 0) {
    auto* rows = static_cast<float*>(ctx.SharedScratch(static_cast<size_t>(n * k) * sizeof(float)));
    ctx.ParallelFor(k, 1024, [&](int64_t begin, int64_t end, int) {
      float row[kThinColumns];
      for (int64_t p = begin; p < end; ++p) {
        ConvertToF32(b.dtype, At(b, p, 0), row, n);
        for (int64_t j = 0; j < n; ++j) rows[j * k + p] = row[j];
      }
    });
    return ThinNT(ctx, m, n, k, alpha, a, lda, rows, k, c, ldc, acc);
  }
  Gemm(
      ctx, m, n, k, alpha, {a, lda, ALayout::kRowMajor},
      [&](int64_t n0, int64_t nn, int64_t k0, int64_t kk, float* out, uint16_t*) {
        t.pack_b(b.dtype, At(b, k0, n0), b.ld, nn, kk, out);
      },
      c, ldc, acc, {256, kGemmKBlock}, GemmGaps::kNone, low_rank);
}

void MatMulTN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, Accumulate acc) {
  const KernelTable& t = TableFor(ctx.isa());
  if (n <= kThinColumns && m > kThinColumns && k > 0) {
    return ThinTN(ctx, m, n, k, alpha, a, lda, b, ldb, c, ldc, acc);
  }
  Gemm(
      ctx, m, n, k, alpha, {a, lda, ALayout::kKMajor},
      [&](int64_t n0, int64_t nn, int64_t k0, int64_t kk, float* out, uint16_t*) {
        t.pack_b(DType::kF32, b + k0 * ldb + n0, ldb, nn, kk, out);
      },
      c, ldc, acc);
}

}  // namespace edgewise::kernels
