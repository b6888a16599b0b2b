// Vector exponential, tanh and sigmoid. math_test.cc holds them to the errors stated here.
#pragma once

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

// e^x = 2^n y for |x| <= 89, n integral.
struct ExpParts {
  Vec n, y;
};
// x = n ln 2 + r, y = e^r by a polynomial that is within 1.1e-8 of it on |r| <= ln(2) / 2.
EW_INLINE ExpParts SplitExp(Vec x) {
  const Vec n = Round(x * Set1(1.44269502f));
  // ln 2 = 0.693359375 - 0.000212194442; the first part times n is exact.
  Vec r = Fma(n, Set1(-0.693359375f), x);
  r = Fma(n, Set1(0.000212194442f), r);
  Vec q = Set1(0.00139262131f);
  q = Fma(q, r, Set1(0.00836320315f));
  q = Fma(q, r, Set1(0.0416665561f));
  q = Fma(q, r, Set1(0.166665763f));
  q = Fma(q, r, Set1(0.5f));
  return {n, Fma(q * r, r, r) + Set1(1.0f)};
}

// e^x: relative error at most 2.5 units of 2^-24; 0 below -87 (results under 2^-125 are flushed),
// infinity above 88.73, NaN stays NaN.
EW_INLINE Vec Exp(Vec x) {
  const Vec low = Set1(-86.9f);
  const ExpParts e = SplitExp(Min(Set1(88.73f), Max(low, x)));
  // Half of 2^n, so that n = 128 stays in range.
  const Vec result = (e.y + e.y) * Pow2(e.n - Set1(1.0f));
  return SelectLess(x, low, Set1(0.0f),
                    SelectLess(Set1(88.72283f), x, Set1(__builtin_inff()), result));
}

// The same for x <= 80 or NaN, in fewer steps: the weights of a softmax.
EW_INLINE Vec ExpOfSmall(Vec x) {
  const Vec low = Set1(-86.9f);
  const ExpParts e = SplitExp(Max(low, x));
  return SelectLess(x, low, Set1(0.0f), TimesPow2(e.y, e.n));
}

EW_INLINE float ExpScalar(float x) { return Exp(Set1(x))[0]; }

// tanh x: relative error at most 4 units of 2^-24. An odd polynomial where 1 - 2 / (e^2x + 1) would
// cancel.
EW_INLINE Vec Tanh(Vec x) {
  const Vec zero = Set1(0.0f), one = Set1(1.0f);
  const Vec a = SelectLess(x, zero, zero - x, x);
  const Vec z = x * x;
  Vec q = Set1(0.00229177042f);
  q = Fma(q, z, Set1(-0.00834308565f));
  q = Fma(q, z, Set1(0.0217686556f));
  q = Fma(q, z, Set1(-0.0539592281f));
  q = Fma(q, z, Set1(0.133333027f));
  q = Fma(q, z, Set1(-0.333333343f));
  const Vec small = Fma(q * z, x, x);
  const Vec large = one - Set1(2.0f) / (Exp(a + a) + one);
  return SelectLess(a, Set1(0.625f), small, SelectLess(x, zero, zero - large, large));
}

EW_INLINE Vec Sigmoid(Vec x) {
  const Vec one = Set1(1.0f);
  return one / (one + Exp(Set1(0.0f) - x));
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
