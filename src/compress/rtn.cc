#include "compress/rtn.h"

#include <cmath>

namespace edgewise::compress {

template <typename T>
QuantizedMatrix<T> RoundToNearest(const T* w, int64_t rows, int64_t cols, Grid grid, int64_t group,
                                  const uint8_t* keep, float (*round_scale)(float)) {
  QuantizedMatrix<T> q;
  q.group = group > 0 ? group : cols;
  q.groups = (cols + q.group - 1) / q.group;
  q.codes.assign(static_cast<size_t>(rows * cols), 0);
  q.scales.resize(static_cast<size_t>(rows * q.groups));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < q.groups; ++g) {
      const int64_t begin = r * cols + g * q.group;
      const int64_t end = r * cols + std::min(cols, (g + 1) * q.group);
      T max_abs = 0;
      for (int64_t i = begin; i < end; ++i) {
        if (keep == nullptr || keep[i] != 0) max_abs = std::max(max_abs, std::abs(w[i]));
      }
      T scale = grid.ScaleFor(max_abs);
      if (round_scale != nullptr) scale = static_cast<T>(round_scale(static_cast<float>(scale)));
      q.scales[static_cast<size_t>(r * q.groups + g)] = scale;
      for (int64_t i = begin; i < end; ++i) {
        if (keep == nullptr || keep[i] != 0)
          q.codes[static_cast<size_t>(i)] = grid.Code(w[i], scale);
      }
    }
  }
  return q;
}

template QuantizedMatrix<float> RoundToNearest(const float*, int64_t, int64_t, Grid, int64_t,
                                               const uint8_t*, float (*)(float));
template QuantizedMatrix<double> RoundToNearest(const double*, int64_t, int64_t, Grid, int64_t,
                                                const uint8_t*, float (*)(float));

}  // namespace edgewise::compress
