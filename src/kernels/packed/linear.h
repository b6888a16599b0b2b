// Products with packed weights. kernels/linear.h comes here for a WeightRef that is packed; call
// these directly for a range of rows (blocks of a vocabulary).
//
// Results do not depend on the number of threads or on the other rows of X, and are the same bits
// for every instruction set (the exact backward pass excepted, which is fp32).
#pragma once

#include <cstdint>
#include <span>

#include "base/aligned_buffer.h"
#include "exec/context.h"
#include "kernels/linear.h"
#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {

// Rows [begin, end) of a matrix; begin is a multiple of 16.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Y[m, range] (+)= X[m,in] W[range]^T + bias: X is rounded to int8 per token and group of
// format().act_group columns, sums are exact integers per group, scaled in fp32 and added one after
// the other (to Y, if there are several groups and no bias; else Y is added at the end). y and bias
// point at the first column of the range.
void PackedForward(ExecContext& ctx, int64_t m, const float* x, int64_t ldx, const PackedMatrix& w,
                   RowRange range, const float* bias, float* y, int64_t ldy, Accumulate acc,
                   const LowRank& low_rank = {});

// Several matrices on the same X, which is rounded once and shared among the threads as one
// product.
struct PackedTarget {
  const PackedMatrix* w = nullptr;
  RowRange range;
  const float* bias = nullptr;
  float* y = nullptr;
  int64_t ldy = 0;
  Accumulate acc = Accumulate::kOverwrite;
  LowRank low_rank = {};  // of the range's columns; added last
};
inline constexpr size_t kMaxTargets = 4;
// Whether two matrices round their input in the same way.
inline bool SharesInput(const PackedMatrix& a, const PackedMatrix& b) {
  return a.cols() == b.cols() && a.format().act_group == b.format().act_group;
}
// As PackedForward on each (same bits); all of them share their input, ranges are not empty.
void PackedForwardMany(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                       std::span<const PackedTarget> targets);
// The same for rows of X that are made, rounded and forgotten.
void PackedForwardMade(ExecContext& ctx, int64_t m, RowMaker make,
                       std::span<const PackedTarget> targets);

// dX[m,in] (+)= dY[m, range] W[range]; dy points at the first column of the range.
//
// kExact: panels of W become fp32 once per tile of tokens. kInteger: W is brought to int8 codes
// with one scale S per output row (what it is already when scales are per channel; groups are
// re-rounded to 8 bits within the row's range), dY S is rounded to int8 per token and 128 outputs,
// nearest or stochastically (unbiased), sums are exact integers, added one after the other to zero
// or dX.
// Absent blocks (kBlock) are left out either way: a dY that is not finite spoils what its stored
// blocks reach.
void PackedBackwardInput(ExecContext& ctx, int64_t m, const float* dy, int64_t lddy,
                         const PackedMatrix& w, RowRange range, float* dx, int64_t lddx,
                         Accumulate acc, const LinearBackwardOptions& options,
                         const LowRank& low_rank = {});

// out[t,:] = scale * W[ids[t],:] for ids inside the matrix: packed embeddings.
void PackedGatherRows(ExecContext& ctx, const PackedMatrix& w, int64_t count, const int32_t* ids,
                      float scale, float* out);

// Columns [col, col + cols) of rows [row, row + rows) as fp32 panels of `nr` columns over rows
// (KernelTable::pack_b), for fp32 products with W as right matrix.
class PackedPanels {
 public:
  PackedPanels(ExecContext& ctx, const PackedMatrix& w, RowRange range);
  // Rows count from the range's begin. Any thread; row is a multiple of 16, col of
  // min(nr, 16); nr is 8, 16 or a multiple of 16. `steps`: null, or (kBlock, rows <= 256) receives
  // which 16 rows of each panel meet a stored block (BPanels::steps); the others are not written.
  void Pack(int64_t col, int64_t cols, int64_t row, int64_t rows, int64_t nr, float* out,
            uint16_t* steps) const;

 private:
  void Stored(int64_t col, int64_t cols, int64_t row, int64_t rows, int64_t nr,
              uint16_t* steps) const;

  const PackedMatrix& w_;
  RowRange range_;
  const struct Int8Table& table_;
  AlignedBuffer cursors_;
};

}  // namespace edgewise::kernels
