// Round to nearest on a grid, one scale per row or per group of inputs.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/grid.h"

namespace edgewise::compress {

// codes [rows, cols]; scales [rows, groups], groups = ceil(cols / group); group 0: one per row.
template <typename T>
struct QuantizedMatrix {
  std::vector<int8_t> codes;
  std::vector<T> scales;
  int64_t group = 0;   // inputs per scale
  int64_t groups = 0;  // scales per row
};

// `keep` [rows, cols] (null: all kept): pruned weights get code 0 and do not count for the scale.
// `round_scale` (null: none) rounds every scale to the type in which it is stored.
template <typename T>
QuantizedMatrix<T> RoundToNearest(const T* w, int64_t rows, int64_t cols, Grid grid, int64_t group,
                                  const uint8_t* keep = nullptr,
                                  float (*round_scale)(float) = nullptr);

}  // namespace edgewise::compress
