// Rows of a weight matrix as fp32, whatever its form.
#pragma once

#include <cstdint>

#include "kernels/weight.h"

namespace edgewise::kernels {

// out [rows, w.cols] = rows row .. row+rows-1 of w. The range lies inside w.
void WeightRowsToF32(const WeightRef& w, int64_t row, int64_t rows, float* out);

}  // namespace edgewise::kernels
