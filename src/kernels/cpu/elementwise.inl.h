// Row-wise and element-wise operations. See KernelTable for what each function promises.
#pragma once

#include "kernels/cpu/math.inl.h"
#include "kernels/kernel_table.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

// Calls body(offset, lanes) over [0, n); the last call may have fewer than kLanes lanes.
template <typename Body>
EW_INLINE void ForVectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, int64_t{kLanes});
  if (i < n) body(i, n - i);
}

EW_INLINE Vec LoadUpTo(const float* p, int64_t n) { return n == kLanes ? Load(p) : LoadN(p, n); }
EW_INLINE void StoreUpTo(float* p, Vec v, int64_t n) {
  if (n == kLanes) {
    Store(p, v);
  } else {
    StoreN(p, v, n);
  }
}

EW_INLINE Vec Gain(const float* weight, int64_t i, int64_t n, bool plus_one) {
  const Vec w = LoadUpTo(weight + i, n);
  return plus_one ? w + Set1(1.0f) : w;
}

// Sum of a[i] b[i], four partial sums.
EW_INLINE float Dot(int64_t n, const float* a, const float* b) {
  Vec s0 = Set1(0.0f), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = Fma(Load(a + i), Load(b + i), s0);
    s1 = Fma(Load(a + i + kLanes), Load(b + i + kLanes), s1);
    s2 = Fma(Load(a + i + 2 * kLanes), Load(b + i + 2 * kLanes), s2);
    s3 = Fma(Load(a + i + 3 * kLanes), Load(b + i + 3 * kLanes), s3);
  }
  for (; i + kLanes <= n; i += kLanes) s0 = Fma(Load(a + i), Load(b + i), s0);
  if (i < n) s1 = Fma(LoadN(a + i, n - i), LoadN(b + i, n - i), s1);
  return ReduceAdd((s0 + s1) + (s2 + s3));
}

void RmsNorm(int64_t rows, int64_t n, float eps, bool plus_one, const float* x, const float* weight,
             float* y, float* rstd) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const float scale = 1.0f / __builtin_sqrtf(Dot(n, x, x) / static_cast<float>(n) + eps);
    if (rstd != nullptr) rstd[r] = scale;
    const Vec s = Set1(scale);
    ForVectors(n, [&](int64_t i, int64_t lanes) {
      StoreUpTo(y + i, LoadUpTo(x + i, lanes) * s * Gain(weight, i, lanes, plus_one), lanes);
    });
  }
}

void RmsNormVjp(int64_t rows, int64_t n, bool plus_one, const float* x, const float* weight,
                const float* rstd, const float* dy, float* dx, bool add) {
  for (int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    Vec sum = Set1(0.0f);
    ForVectors(n, [&](int64_t i, int64_t lanes) {
      sum = Fma(LoadUpTo(dy + i, lanes) * Gain(weight, i, lanes, plus_one), LoadUpTo(x + i, lanes),
                sum);
    });
    const Vec scale = Set1(rstd[r]);
    const Vec mean = Set1(ReduceAdd(sum) * rstd[r] * rstd[r] / static_cast<float>(n));
    ForVectors(n, [&](int64_t i, int64_t lanes) {
      const Vec u = LoadUpTo(dy + i, lanes) * Gain(weight, i, lanes, plus_one);
      const Vec d = scale * (u - LoadUpTo(x + i, lanes) * mean);
      StoreUpTo(dx + i, add ? LoadUpTo(dx + i, lanes) + d : d, lanes);
    });
  }
}

void RmsNormWeightVjp(int64_t rows, int64_t n, int64_t ld, const float* x, const float* rstd,
                      const float* dy, float* dweight) {
  ForVectors(n, [&](int64_t i, int64_t lanes) {
    // On top of what is there: rows that come in pieces give the same bits.
    Vec sum = LoadUpTo(dweight + i, lanes);
    for (int64_t r = 0; r < rows; ++r) {
      sum = Fma(LoadUpTo(dy + r * ld + i, lanes), LoadUpTo(x + r * ld + i, lanes) * Set1(rstd[r]),
                sum);
    }
    StoreUpTo(dweight + i, sum, lanes);
  });
}

void Rope(int64_t rows, int64_t heads, int64_t d, float* x, int64_t ldx, const int32_t* positions,
          const float* cos_table, const float* sin_table, bool inverse) {
  const int64_t half = d / 2;
  const Vec sign = Set1(inverse ? -1.0f : 1.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const float* c = cos_table + positions[r] * half;
    const float* s = sin_table + positions[r] * half;
    for (int64_t h = 0; h < heads; ++h) {
      float* v = x + r * ldx + h * d;
      ForVectors(half, [&](int64_t i, int64_t lanes) {
        const Vec lo = LoadUpTo(v + i, lanes), hi = LoadUpTo(v + half + i, lanes);
        const Vec cosine = LoadUpTo(c + i, lanes), sine = sign * LoadUpTo(s + i, lanes);
        StoreUpTo(v + i, lo * cosine - hi * sine, lanes);
        StoreUpTo(v + half + i, hi * cosine + lo * sine, lanes);
      });
    }
  }
}

void SwiGlu(int64_t count, const float* gate, const float* up, float* out) {
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    const Vec g = LoadUpTo(gate + i, lanes);
    StoreUpTo(out + i, g * Sigmoid(g) * LoadUpTo(up + i, lanes), lanes);
  });
}

void SwiGluVjp(int64_t count, const float* gate, const float* up, const float* dout, float* dgate,
               float* dup) {
  const Vec one = Set1(1.0f);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    const Vec g = LoadUpTo(gate + i, lanes), u = LoadUpTo(up + i, lanes);
    const Vec d = LoadUpTo(dout + i, lanes), s = Sigmoid(g);
    StoreUpTo(dgate + i, d * u * (s * Fma(g, one - s, one)), lanes);
    StoreUpTo(dup + i, d * (g * s), lanes);
  });
}

// gelu(x) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3), because (1 + tanh u) / 2 = sigmoid
// 2u. Beyond |x| = 16 the sigmoid is 0 or 1 exactly, so u need not grow (and overflow) further.
struct GeluParts {
  Vec sigmoid, slope;  // slope: d(2u)/dx
};
EW_INLINE GeluParts Gelu(Vec x) {
  const Vec xc = Min(Set1(16.0f), Max(Set1(-16.0f), x));
  const Vec z = xc * xc;
  const Vec two_k = Set1(2 * 0.797884561f);
  return {Sigmoid(two_k * xc * Fma(z, Set1(0.044715f), Set1(1.0f))),
          two_k * Fma(z, Set1(3 * 0.044715f), Set1(1.0f))};
}

void GeGlu(int64_t count, const float* gate, const float* up, float* out) {
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    const Vec g = LoadUpTo(gate + i, lanes);
    StoreUpTo(out + i, g * Gelu(g).sigmoid * LoadUpTo(up + i, lanes), lanes);
  });
}

void GeGluVjp(int64_t count, const float* gate, const float* up, const float* dout, float* dgate,
              float* dup) {
  const Vec one = Set1(1.0f);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    const Vec g = LoadUpTo(gate + i, lanes), u = LoadUpTo(up + i, lanes);
    const Vec d = LoadUpTo(dout + i, lanes);
    const GeluParts p = Gelu(g);
    const Vec derivative = p.sigmoid * Fma(g * (one - p.sigmoid), p.slope, one);
    StoreUpTo(dgate + i, d * u * derivative, lanes);
    StoreUpTo(dup + i, d * (g * p.sigmoid), lanes);
  });
}

void ExpVector(int64_t count, const float* x, float* y) {
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    StoreUpTo(y + i, Exp(LoadUpTo(x + i, lanes)), lanes);
  });
}

void TanhVector(int64_t count, const float* x, float* y) {
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    StoreUpTo(y + i, Tanh(LoadUpTo(x + i, lanes)), lanes);
  });
}

void Axpy(int64_t count, float a, const float* x, float* y) {
  const Vec s = Set1(a);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    StoreUpTo(y + i, Fma(s, LoadUpTo(x + i, lanes), LoadUpTo(y + i, lanes)), lanes);
  });
}

void Scale(int64_t count, float a, float* x) {
  const Vec s = Set1(a);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    StoreUpTo(x + i, s * LoadUpTo(x + i, lanes), lanes);
  });
}

bool Finite(int64_t count, const float* x) {
  // x - x is 0 for finite x, NaN otherwise; NaN stays in the sum.
  Vec sum = Set1(0.0f);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    const Vec v = LoadUpTo(x + i, lanes);
    sum = sum + (v - v);
  });
  return ReduceAdd(sum) == 0.0f;
}

void AdamW(const AdamWConstants& c, int64_t count, float* param, const float* grad, float* m,
           float* v) {
  const Vec grad_scale = Set1(c.grad_scale), b1 = Set1(c.beta1), b2 = Set1(c.beta2);
  const Vec one_b1 = Set1(c.one_minus_beta1), one_b2 = Set1(c.one_minus_beta2);
  const Vec decay = Set1(c.decay), step = Set1(c.step_size), eps = Set1(c.eps);
  const Vec inv = Set1(c.inv_sqrt_correction2);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    const Vec g = LoadUpTo(grad + i, lanes) * grad_scale;
    const Vec mi = Fma(b1, LoadUpTo(m + i, lanes), one_b1 * g);
    const Vec vi = Fma(b2, LoadUpTo(v + i, lanes), one_b2 * g * g);
    const Vec update = mi / Fma(Sqrt(vi), inv, eps);
    StoreUpTo(m + i, mi, lanes);
    StoreUpTo(v + i, vi, lanes);
    StoreUpTo(param + i, decay * LoadUpTo(param + i, lanes) - step * update, lanes);
  });
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
