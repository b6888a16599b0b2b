// Dense matrix products. All matrices are row-major; ld* are elements from row to row.
//
// Every element of C is one sum over k in an order fixed by the instruction set and the shape of
// the operation, so results are the same bits with any number of threads, and row i of C does not
// depend on how many other rows there are.
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/low_rank.h"
#include "kernels/weight.h"

namespace edgewise::kernels {

enum class Accumulate : bool { kOverwrite = false, kAdd = true };

// Where a low-rank term can be given (wider than kThinColumns, k > 0), it is added at the end, with
// the bits of a product of its own.

// Products with so few columns run along k instead (KernelTable::multiply_thin).
inline constexpr int64_t kThinColumns = 16;

// C[m,n] (+)= alpha A[m,k] B[n,k]^T. Forward of a linear layer (B = weight), LoRA A.
void MatMulNT(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const WeightRef& b, float* c, int64_t ldc,
              Accumulate acc = Accumulate::kOverwrite, const LowRank& low_rank = {});

// C[m,n] (+)= alpha A[m,k] B[k,n]. Gradient of a linear layer's input (A = dY, B = weight).
void MatMulNN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const WeightRef& b, float* c, int64_t ldc,
              Accumulate acc = Accumulate::kOverwrite, const LowRank& low_rank = {});

// C[m,n] (+)= alpha A[k,m]^T B[k,n]. Gradient of a weight (A = dY, B = X, k = tokens). Added to C
// in pieces of k, each a multiple of kTokenBlock but the last, it is the same bits as at once.
inline constexpr int64_t kTokenBlock = 256;
void MatMulTN(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
              int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
              Accumulate acc = Accumulate::kOverwrite);

}  // namespace edgewise::kernels
