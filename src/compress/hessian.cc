#include <fmt/format.h>
#include <lapacke.h>

#include <cmath>

#include "compress/second_order.h"

namespace edgewise::compress {
namespace {

// LAPACK is column-major: the upper triangle of a symmetric row-major matrix is its 'L'.
lapack_int Potrf(char uplo, lapack_int n, float* a) {
  return LAPACKE_spotrf_work(LAPACK_COL_MAJOR, uplo, n, a, n);
}
lapack_int Potrf(char uplo, lapack_int n, double* a) {
  return LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, uplo, n, a, n);
}
lapack_int Potri(char uplo, lapack_int n, float* a) {
  return LAPACKE_spotri_work(LAPACK_COL_MAJOR, uplo, n, a, n);
}
lapack_int Potri(char uplo, lapack_int n, double* a) {
  return LAPACKE_dpotri_work(LAPACK_COL_MAJOR, uplo, n, a, n);
}

}  // namespace

template <typename T>
Result<InverseFactor<T>> FactorInverseHessian(const T* h, int64_t n, const HessianOptions& options,
                                              const std::vector<int64_t>& order) {
  if (n <= 0 || n > 1 << 20) return InvalidArgument(fmt::format("a Hessian of {} inputs", n));
  InverseFactor<T> out;
  out.n = n;
  double trace = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T d = h[i * n + i];
    if (!std::isfinite(d) || d < 0) {
      return BadInput(fmt::format("calibration inputs are not finite at feature {}", i));
    }
    if (d == T(0)) {
      out.dead.push_back(i);
      trace += 1;
    } else {
      trace += static_cast<double>(d);
    }
  }
  const double mean = trace / static_cast<double>(n);
  double percdamp = options.percdamp;
  for (int attempt = 0;; ++attempt) {
    out.damp = percdamp * mean;
    out.retries = attempt;
    out.u.resize(static_cast<size_t>(n * n));
    T* a = out.u.data();
    for (int64_t i = 0; i < n; ++i) {
      const int64_t src = order.empty() ? i : order[static_cast<size_t>(i)];
      for (int64_t j = 0; j < n; ++j) {
        a[i * n + j] = h[src * n + (order.empty() ? j : order[static_cast<size_t>(j)])];
      }
      if (a[i * n + i] == T(0)) a[i * n + i] = T(1);
      a[i * n + i] += static_cast<T>(out.damp);
    }
    // Row-major symmetric is its own transpose. Column-major 'L' is the row-major upper triangle:
    // potrf('L') + potri('L') leave H^-1 there, and a second potrf('L') factors it as L L^T, whose
    // L, read row-major, is the upper U with H^-1 = U^T U.
    const auto m = static_cast<lapack_int>(n);
    if (Potrf('L', m, a) == 0 && Potri('L', m, a) == 0 && Potrf('L', m, a) == 0) {
      for (int64_t i = 1; i < n; ++i) std::fill(a + i * n, a + i * n + i, T(0));
      return out;
    }
    if (attempt == options.max_retries) {
      return BadInput(
          fmt::format("the Hessian of the calibration inputs is not positive definite even with "
                      "damping {:.3g}; "
                      "use more calibration text or a larger damping",
                      out.damp));
    }
    percdamp = percdamp > 0 ? percdamp * 10 : 1e-4;
  }
}

template Result<InverseFactor<float>> FactorInverseHessian(const float*, int64_t,
                                                           const HessianOptions&,
                                                           const std::vector<int64_t>&);
template Result<InverseFactor<double>> FactorInverseHessian(const double*, int64_t,
                                                            const HessianOptions&,
                                                            const std::vector<int64_t>&);

}  // namespace edgewise::compress
