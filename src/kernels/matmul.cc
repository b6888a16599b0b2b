#include "kernels/matmul.h"

#include <vector>

#include "kernels/ref/matmul.h"
#include "kernels/weight_rows.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kRowGrain = 8;

float Beta(Accumulate acc) { return acc == Accumulate::kAdd ? 1.0f : 0.0f; }

}  // namespace

void MatMulNT(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const WeightRef& b, float* c, int64_t ldc, Accumulate acc) {
  std::vector<float> w(static_cast<size_t>(n * k));
  WeightRowsToF32(b, 0, n, w.data());
  ctx.ParallelFor(m, kRowGrain, [&](int64_t begin, int64_t end, int) {
    ref::MatMulNT<float>(end - begin, n, k, alpha, a + begin * lda, lda, w.data(), k, Beta(acc),
                         c + begin * ldc, ldc);
  });
}

void MatMulNN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const WeightRef& b, float* c, int64_t ldc, Accumulate acc) {
  std::vector<float> w(static_cast<size_t>(n * k));
  WeightRowsToF32(b, 0, k, w.data());
  ctx.ParallelFor(m, kRowGrain, [&](int64_t begin, int64_t end, int) {
    ref::MatMulNN<float>(end - begin, n, k, alpha, a + begin * lda, lda, w.data(), n, Beta(acc),
                         c + begin * ldc, ldc);
  });
}

void MatMulTN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, Accumulate acc) {
  ctx.ParallelFor(m, kRowGrain, [&](int64_t begin, int64_t end, int) {
    ref::MatMulTN<float>(end - begin, n, k, alpha, a + begin, lda, b, ldb, Beta(acc),
                         c + begin * ldc, ldc);
  });
}

}  // namespace edgewise::kernels
