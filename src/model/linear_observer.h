// Looks at what goes through the linears of a model: calibration data for compression.
#pragma once

#include <cstdint>

#include "model/weights.h"

namespace edgewise::model {

class LinearObserver {
 public:
  virtual ~LinearObserver() = default;
  // Input x [rows, in] of a linear, in the forward pass. q, k and v see the same x, as do gate and
  // up. With recomputation it is called again in the backward pass.
  virtual void Input(int64_t layer, LinearKind kind, int64_t rows, const float* x) {
    (void)layer, (void)kind, (void)rows, (void)x;
  }
  // Input x and gradient dy [rows, out] of the loss with respect to the output, in the backward
  // pass of the layers that it reaches.
  virtual void Gradient(int64_t layer, LinearKind kind, int64_t rows, const float* x,
                        const float* dy) {
    (void)layer, (void)kind, (void)rows, (void)x, (void)dy;
  }
};

}  // namespace edgewise::model
