// Compresses one linear: mask, codes and scales by the chosen methods, then packs them.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "compress/compressor.h"
#include "compress/second_order.h"
#include "exec/context.h"
#include "kernels/packed/packed_matrix.h"

namespace edgewise::compress {

struct LinearResult {
  // Packed, or (bits 16) only `dense`.
  bool packed = false;
  kernels::PackedMatrix matrix;
  std::vector<float> dense;  // [rows, cols] the values that the result stands for
  double error = 0;          // relative output error, from the Hessian
  std::string warning;       // "" or what happened
};

struct LinearTask {
  // Of h, with the options' damping, when several results are made from one Hessian; or null.
  const InverseFactor<float>* factor = nullptr;
  bool values_only = false;  // `dense` alone: nothing is packed, no error measured
};

// w [rows, cols]; h [cols, cols] = X^T X of the calibration inputs (any positive factor).
Result<LinearResult> CompressLinear(ExecContext& ctx, const float* w, const float* h, int64_t rows,
                                    int64_t cols, const Option& option,
                                    const CompressOptions& options, const LinearTask& task = {});

// The format that an option is packed in. bits <= 8.
kernels::PackedFormat FormatOf(int64_t rows, int64_t cols, const Option& option,
                               const CompressionPolicy& policy);
// Bytes of a linear under an option, exactly for dense and n:m, by expectation for the others.
int64_t PackedBytes(int64_t rows, int64_t cols, const Option& option, int64_t group,
                    const std::string& pattern);

}  // namespace edgewise::compress
