// Dense row-major tensors: `TensorView` never owns, `HostTensor` keeps alive whatever it points
// into.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/dtype.h"

namespace edgewise {

// Read-only view of a dense, contiguous, row-major tensor. `data` may be misaligned for its type
// when it points into a file: convert with ConvertToF32 or memcpy. The owner must outlive the view.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t bytes() const { return elements() * static_cast<int64_t>(DTypeBytes(dtype)); }
};

// A view plus shared ownership of its storage (a mapped file or a buffer).
struct HostTensor {
  TensorView view;
  std::shared_ptr<const void> owner;
};

}  // namespace edgewise
