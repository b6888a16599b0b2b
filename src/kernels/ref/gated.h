// The specification of gated activations (SwiGLU, GeGLU; arXiv 2002.05202).
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

#include "kernels/elementwise.h"

namespace edgewise::kernels::ref {

inline constexpr double kSqrt2OverPi = 0.79788456080286535588;
inline constexpr double kSqrtHalf = 0.70710678118654752440;
inline constexpr double kInvSqrt2Pi = 0.39894228040143267794;

// Value and derivative of the activation. kGelu only for real T (erf).
template <typename T>
T ActivationValue(Activation act, T x) {
  using std::exp;
  using std::tanh;
  switch (act) {
    case Activation::kSilu:
      return x / (T(1) + exp(-x));
    case Activation::kGeluTanh:
      return T(0.5) * x * (T(1) + tanh(T(kSqrt2OverPi) * (x + T(0.044715) * x * x * x)));
    case Activation::kGelu:
      if constexpr (std::is_floating_point_v<T>) {
        return T(0.5) * x * (T(1) + std::erf(x * T(kSqrtHalf)));
      }
      break;
  }
  return T(0);
}

template <typename T>
T ActivationDerivative(Activation act, T x) {
  using std::exp;
  using std::tanh;
  switch (act) {
    case Activation::kSilu: {
      const T s = T(1) / (T(1) + exp(-x));
      return s * (T(1) + x * (T(1) - s));
    }
    case Activation::kGeluTanh: {
      const T t = tanh(T(kSqrt2OverPi) * (x + T(0.044715) * x * x * x));
      const T du = T(kSqrt2OverPi) * (T(1) + T(3 * 0.044715) * x * x);
      // Where tanh has reached 1 its derivative is 0, however large du is.
      const T slope = T(1) - t * t;
      return T(0.5) * (T(1) + t) + (slope == T(0) ? T(0) : T(0.5) * x * slope * du);
    }
    case Activation::kGelu:
      if constexpr (std::is_floating_point_v<T>) {
        return T(0.5) * (T(1) + std::erf(x * T(kSqrtHalf))) +
               x * T(kInvSqrt2Pi) * exp(T(-0.5) * x * x);
      }
      break;
  }
  return T(0);
}

// out = act(gate) up.
template <typename T>
void Gated(Activation act, int64_t count, const T* gate, const T* up, T* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = ActivationValue(act, gate[i]) * up[i];
}

// dgate = dout up act'(gate); dup = dout act(gate). Outputs may alias inputs.
template <typename T>
void GatedVjp(Activation act, int64_t count, const T* gate, const T* up, const T* dout, T* dgate,
              T* dup) {
  for (int64_t i = 0; i < count; ++i) {
    const T g = gate[i], u = up[i], d = dout[i];
    dgate[i] = d * u * ActivationDerivative(act, g);
    dup[i] = d * ActivationValue(act, g);
  }
}

}  // namespace edgewise::kernels::ref
