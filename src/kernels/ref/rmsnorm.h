// The specification of RMSNorm (arXiv 1910.07467).
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

namespace edgewise::kernels::ref {

// y[r,i] = x[r,i] rstd[r] g[i], rstd[r] = (mean_i x[r,i]^2 + eps)^-1/2, g = weight or 1 + weight.
template <typename T>
void RmsNorm(int64_t rows, int64_t n, T eps, bool plus_one, const T* x, const T* weight, T* y,
             T* rstd) {
  using std::sqrt;
  for (int64_t r = 0; r < rows; ++r) {
    T squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += x[r * n + i] * x[r * n + i];
    rstd[r] = T(1) / sqrt(squares / T(n) + eps);
    for (int64_t i = 0; i < n; ++i) {
      const T g = plus_one ? T(1) + weight[i] : weight[i];
      y[r * n + i] = x[r * n + i] * rstd[r] * g;
    }
  }
}

// With u_i = dy_i g_i: dx_i += rstd (u_i - x_i rstd^2 mean_j(u_j x_j)); dweight_i += dy_i x_i rstd.
// dx and dweight are added to; dweight may be null.
template <typename T>
void RmsNormVjp(int64_t rows, int64_t n, bool plus_one, const T* x, const T* weight, const T* rstd,
                const T* dy, T* dx, T* dweight) {
  for (int64_t r = 0; r < rows; ++r) {
    T dot = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T g = plus_one ? T(1) + weight[i] : weight[i];
      dot += dy[r * n + i] * g * x[r * n + i];
    }
    const T mean = dot * rstd[r] * rstd[r] / T(n);
    for (int64_t i = 0; i < n; ++i) {
      const T g = plus_one ? T(1) + weight[i] : weight[i];
      dx[r * n + i] += rstd[r] * (dy[r * n + i] * g - x[r * n + i] * mean);
      if (dweight != nullptr) dweight[i] += dy[r * n + i] * x[r * n + i] * rstd[r];
    }
  }
}

}  // namespace edgewise::kernels::ref
