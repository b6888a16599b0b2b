// A matrix of activations (or gradients) rounded to int8.
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/linear.h"
#include "kernels/packed/int8_table.h"
#include "kernels/packed/linear.h"

namespace edgewise::kernels {

struct QuantizedRows {
  const int8_t* q = nullptr;  // [m][stride]
  int64_t stride = 0;
  const int32_t* sums = nullptr;  // [m][sums_stride], prefix sums per kSumCols columns
  int64_t sums_stride = 0;
  const float* scales = nullptr;  // [m][scales_stride]
  int64_t scales_stride = 0;
  bool grouped = false;  // a scale per group of columns, not per row
  // TileProduct::corrections of QuantizePlan::corrected[i], whose strides are there, too.
  const int32_t* corrections[kMaxTargets] = {};

  // In plan.bytes of 64-byte aligned memory.
  static QuantizedRows At(const struct QuantizePlan& plan, void* memory);
};

struct QuantizePlan {
  int64_t m = 0, cols = 0;
  int64_t padded = 0;  // columns, a multiple of 64
  int64_t group = 0;   // 0: per row
  int64_t stride = 0, sums_stride = 0, scales_stride = 0;
  int64_t bytes = 0;  // of memory needed
  // What TileProduct::corrections are made of.
  struct Corrected {
    int zero = 0;
    int64_t width = 0;         // columns of a segment, a multiple of kSumCols
    int64_t segments = 0;      // whole ones
    int64_t stride = 0;        // from rows to the next kMaxProductRows
    int64_t bytes_before = 0;  // in the memory
  };
  Corrected corrected[kMaxTargets];  // at most one for each matrix on the same X
  int corrected_count = 0;

  // Columns are padded with zeros to a multiple of `multiple` (of 64).
  static QuantizePlan Make(int64_t m, int64_t cols, int64_t group, int64_t multiple);
  // Its number in `corrected`, which may have been there already.
  int AddCorrections(int zero, int64_t width);
};

// x [m, cols]; fold [cols] or null. Stochastic rounding draws the noise of element (i, j) from
// options.seed and options.substream (see Int8Table::noise_row). `memory`: plan.bytes, 64-byte
// aligned.
QuantizedRows QuantizeRows(ExecContext& ctx, const QuantizePlan& plan, const float* x, int64_t ldx,
                           const float* fold, const LinearBackwardOptions& options, void* memory);

// The same of rows that are made one by one in a worker's scratch.
QuantizedRows MakeQuantizedRows(ExecContext& ctx, const QuantizePlan& plan, RowMaker make,
                                void* memory);

// Rows [begin, end) of the former, by one thread.
void QuantizeSomeRows(ExecContext& ctx, int worker, const QuantizePlan& plan, const float* x,
                      int64_t ldx, const float* fold, const LinearBackwardOptions& options,
                      int64_t begin, int64_t end, void* memory);

// One row, x [cols], into row `row` of `rows`, which lie in memory that may be written.
void RoundRow(ExecContext& ctx, const float* x, int64_t cols, int64_t group, int64_t row,
              const QuantizedRows& rows);

}  // namespace edgewise::kernels
