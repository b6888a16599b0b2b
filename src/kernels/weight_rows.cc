#include "kernels/weight_rows.h"

#include <cassert>

namespace edgewise::kernels {

void WeightRowsToF32(const WeightRef& w, int64_t row, int64_t rows, float* out) {
  assert(w.packed == nullptr && row >= 0 && row + rows <= w.rows);
  const auto bytes = static_cast<int64_t>(DTypeBytes(w.dtype));
  const auto* data = static_cast<const unsigned char*>(w.data);
  for (int64_t r = 0; r < rows; ++r) {
    ConvertToF32(w.dtype, data + (row + r) * w.ld * bytes, out + r * w.cols, w.cols);
  }
}

}  // namespace edgewise::kernels
