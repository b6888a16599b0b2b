// What a low-rank adapter adds to a product, tile by tile while the product's results are still in
// the caches (LoRA, arXiv 2106.09685).
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>

#include "base/checked.h"
#include "kernels/kernel_table.h"

namespace edgewise::kernels {

// C[m, n] += scale in M, added after everything else.
struct LowRank {
  int64_t r = 0;  // 0: nothing; at most kMaxLowRank
  float scale = 1;
  const float* in = nullptr;  // [m, r]
  // M, one of the two.
  const float* columns = nullptr;  // [n, r]: by columns of C (B in a forward pass)
  const float* rows = nullptr;     // [r, n] (A in a backward pass), n being ld_rows
  int64_t ld_rows = 0;
};

// One block of k of a product (gemm_driver.h): the bits are those of a product of its own.
inline constexpr int64_t kMaxLowRank = 256;

// Floats that AddLowRank needs for `columns` of C.
inline int64_t LowRankScratch(const KernelTable& t, const LowRank& term, int64_t columns) {
  return RoundUp(columns, t.nr) * term.r;
}

// Rows [row, row + m) and columns [col, col + n) of C, whose first element there is *c. One thread.
inline void AddLowRank(const KernelTable& t, const LowRank& term, int64_t row, int64_t m,
                       int64_t col, int64_t n, float* scratch, float* c, int64_t ldc) {
  if (term.r == 0) return;
  assert(term.r <= kMaxLowRank);
  if (term.columns != nullptr) {
    t.pack_b_transposed(DType::kF32, term.columns + col * term.r, term.r, n, term.r, scratch);
  } else {
    t.pack_b(DType::kF32, term.rows + col, term.ld_rows, n, term.r, scratch);
  }
  t.multiply(m, n, term.r, ALayout::kRowMajor, term.in + row * term.r, term.r,
             {scratch, term.r * t.nr, t.nr}, term.scale, c, ldc, /*add=*/true);
}

}  // namespace edgewise::kernels
