// The walk of a whole matrix product over threads and cache blocks, for any source of the right
// matrix. The bits of C depend on the instruction set and k alone, not on m, the partition or the
// number of threads: sums run over blocks of kGemmKBlock, each from zero, added in order.
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/kernel_table.h"
#include "kernels/low_rank.h"
#include "kernels/matmul.h"

namespace edgewise::kernels {

inline constexpr int64_t kGemmKBlock = 256;
static_assert(kTokenBlock % kGemmKBlock == 0);

// A [m, k] in kRowMajor or kKMajor.
struct GemmA {
  const float* data = nullptr;
  int64_t ld = 0;
  ALayout layout = ALayout::kRowMajor;
};

// Writes columns n0 .. n0+nn-1 of rows k0 .. k0+kk-1 of B as panels (KernelTable::pack_b): n0 is a
// multiple of nr. kk is at most kGemmKBlock, or GemmFewRows::k. Called from any thread. `steps`:
// null, or (GemmGaps) where to say for each of these panels which of its steps are there
// (BPanels::steps); others need not be written.
using PackBFn =
    FunctionRef<void(int64_t n0, int64_t nn, int64_t k0, int64_t kk, float* out, uint16_t* steps)>;

// With few rows (kGemmDirectRows) memory is what is waited for: how much of B one call then packs,
// so that its source is read in long runs. Multiples of nr and of kGemmKBlock.
struct GemmFewRows {
  int64_t columns = 32;
  int64_t k = kGemmKBlock;
};
inline constexpr int64_t kGemmDirectRows = 16;
// Up to so many columns a row-major A is read where it is, too: packing it would cost as much as
// the product (adapters).
inline constexpr int64_t kGemmDirectColumns = 64;

// Whether PackBFn says what B lacks. GemmFewRows::k is then kGemmKBlock.
enum class GemmGaps : bool { kNone, kSome };

static_assert(kMaxLowRank <= kGemmKBlock);

// C[m,n] (+)= alpha A B, then += the low-rank term.
void Gemm(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const GemmA& a,
          PackBFn pack_b, float* c, int64_t ldc, Accumulate acc, GemmFewRows few = {},
          GemmGaps gaps = GemmGaps::kNone, const LowRank& low_rank = {});

}  // namespace edgewise::kernels
