#include "kernels/weight_rows.h"

#include <cassert>

#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {

void WeightRowsToF32(const WeightRef& w, int64_t row, int64_t rows, float* out) {
  assert(row >= 0 && row + rows <= w.rows);
  if (w.packed != nullptr) return w.packed->UnpackRows(row, rows, out, w.cols);
  const auto bytes = static_cast<int64_t>(DTypeBytes(w.dtype));
  const auto* data = static_cast<const unsigned char*>(w.data);
  for (int64_t r = 0; r < rows; ++r) {
    ConvertToF32(w.dtype, data + (row + r) * w.ld * bytes, out + r * w.cols, w.cols);
  }
}

}  // namespace edgewise::kernels
