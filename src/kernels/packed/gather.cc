// Rows of a packed embedding.
#include <algorithm>

#include "kernels/packed/linear.h"

namespace edgewise::kernels {

void PackedGatherRows(ExecContext& ctx, const PackedMatrix& w, int64_t count, const int32_t* ids,
                      float scale, float* out) {
  ctx.ParallelFor(count, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = out + t * w.cols();
      w.UnpackRows(ids[t], 1, row, w.cols());
      if (scale == 1.0f) continue;
      for (int64_t c = 0; c < w.cols(); ++c) row[c] *= scale;
    }
  });
}

}  // namespace edgewise::kernels
