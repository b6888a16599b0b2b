// The specification of the matrix products and of a linear layer with low-rank adapter. Plain
// loops; T is float, double or std::complex<double> (complex-step gradient checks).
#pragma once

#include <cstdint>

namespace edgewise::kernels::ref {

// C[m,n] = beta C + alpha A B^T, A [m,k], B [n,k].
template <typename T>
void MatMulNT(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
              int64_t ldb, T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += a[i * lda + p] * b[j * ldb + p];
      c[i * ldc + j] = (beta == T(0) ? T(0) : beta * c[i * ldc + j]) + alpha * sum;
    }
  }
}

// C[m,n] = beta C + alpha A B, A [m,k], B [k,n].
template <typename T>
void MatMulNN(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
              int64_t ldb, T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += a[i * lda + p] * b[p * ldb + j];
      c[i * ldc + j] = (beta == T(0) ? T(0) : beta * c[i * ldc + j]) + alpha * sum;
    }
  }
}

// C[m,n] = beta C + alpha A^T B, A [k,m], B [k,n].
template <typename T>
void MatMulTN(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
              int64_t ldb, T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += a[p * lda + i] * b[p * ldb + j];
      c[i * ldc + j] = (beta == T(0) ? T(0) : beta * c[i * ldc + j]) + alpha * sum;
    }
  }
}

// y[m,out] = x[m,in] w[out,in]^T + bias[out] (bias may be null).
template <typename T>
void LinearForward(int64_t m, int64_t out, int64_t in, const T* x, const T* w, const T* bias,
                   T* y) {
  MatMulNT<T>(m, out, in, T(1), x, in, w, in, T(0), y, out);
  for (int64_t i = 0; bias != nullptr && i < m; ++i) {
    for (int64_t j = 0; j < out; ++j) y[i * out + j] += bias[j];
  }
}

// dx[m,in] = dy w; dw[out,in] += dy^T x; dbias[out] += column sums of dy (each may be null).
template <typename T>
void LinearVjp(int64_t m, int64_t out, int64_t in, const T* x, const T* w, const T* dy, T* dx,
               T* dw, T* dbias) {
  if (dx != nullptr) MatMulNN<T>(m, in, out, T(1), dy, out, w, in, T(0), dx, in);
  if (dw != nullptr) MatMulTN<T>(out, in, m, T(1), dy, out, x, in, T(1), dw, in);
  for (int64_t i = 0; dbias != nullptr && i < m; ++i) {
    for (int64_t j = 0; j < out; ++j) dbias[j] += dy[i * out + j];
  }
}

// LoRA: xa[m,r] = x a^T; y[m,out] += scale xa b^T; a [r,in], b [out,r].
template <typename T>
void LoraForward(int64_t m, int64_t out, int64_t in, int64_t r, T scale, const T* x, const T* a,
                 const T* b, T* xa, T* y) {
  MatMulNT<T>(m, r, in, T(1), x, in, a, in, T(0), xa, r);
  MatMulNT<T>(m, out, r, scale, xa, r, b, r, T(1), y, out);
}

// dxa[m,r] = dy b; da += scale dxa^T x; db += scale dy^T xa; dx += scale dxa a (dx may be null).
template <typename T>
void LoraVjp(int64_t m, int64_t out, int64_t in, int64_t r, T scale, const T* x, const T* xa,
             const T* a, const T* b, const T* dy, T* dxa, T* da, T* db, T* dx) {
  MatMulNN<T>(m, r, out, T(1), dy, out, b, r, T(0), dxa, r);
  MatMulTN<T>(r, in, m, scale, dxa, r, x, in, T(1), da, in);
  MatMulTN<T>(out, r, m, scale, dy, out, xa, r, T(1), db, r);
  if (dx != nullptr) MatMulNN<T>(m, in, r, scale, dxa, r, a, in, T(1), dx, in);
}

}  // namespace edgewise::kernels::ref
