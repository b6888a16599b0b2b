// Calibration inputs of one linear as the matrix that second-order methods need.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/aligned_buffer.h"
#include "exec/context.h"
#include "kernels/matmul.h"
#include "model/linear_observer.h"

namespace edgewise::compress {

// H += X^T X of one linear's inputs X [tokens, n], over the windows that a forward pass shows.
class HessianObserver : public model::LinearObserver {
 public:
  HessianObserver(ExecContext& ctx, model::LinearKind kind, int64_t n)
      : ctx_(ctx), kind_(kind), n_(n), h_(FloatBuffer::Zeros(n * n)) {}

  void Input(int64_t, model::LinearKind kind, int64_t rows, const float* x) override {
    if (kind != kind_) return;
    kernels::MatMulTN(ctx_, n_, n_, rows, 1.0f, x, n_, x, n_, h_.data(), n_,
                      kernels::Accumulate::kAdd);
    rows_ += rows;
  }

  // (2 / tokens) X^T X [n, n], made exactly symmetric.
  const float* Finish() {
    const float scale = 2.0f / static_cast<float>(std::max<int64_t>(1, rows_));
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const float v = 0.5f * (h_[i * n_ + j] + h_[j * n_ + i]) * scale;
        h_[i * n_ + j] = h_[j * n_ + i] = v;
      }
    }
    return h_.data();
  }

 private:
  ExecContext& ctx_;
  model::LinearKind kind_;
  int64_t n_, rows_ = 0;
  FloatBuffer h_;
};

}  // namespace edgewise::compress
