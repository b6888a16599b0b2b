// A weight matrix as the kernels see it: dense in one of three types, or packed (low-bit, sparse).
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace edgewise::kernels {

class PackedMatrix;  // kernels/packed/packed_matrix.h

// Non-owning. W is [rows, cols] = [out, in], row-major; a linear layer computes y = x W^T.
struct WeightRef {
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kF32;   // kF32, kF16 or kBF16; dense only
  const void* data = nullptr;  // aligned for its type; null when packed
  int64_t ld = 0;              // elements from row to row, >= cols; dense only
  const PackedMatrix* packed = nullptr;

  static WeightRef Dense(const float* w, int64_t rows, int64_t cols) {
    return {rows, cols, DType::kF32, w, cols, nullptr};
  }
};

}  // namespace edgewise::kernels
