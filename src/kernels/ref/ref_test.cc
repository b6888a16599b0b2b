// Gradients of the specification against the complex step: f'(x) = Im f(x + ih) / h, which has no
// cancellation (Squire and Trapp, "Using complex variables to estimate derivatives", 1998).
#include <gtest/gtest.h>

#include <complex>
#include <functional>
#include <vector>

#include "base/rng.h"
#include "kernels/ref/adamw.h"
#include "kernels/ref/attention.h"
#include "kernels/ref/cross_entropy.h"
#include "kernels/ref/gated.h"
#include "kernels/ref/matmul.h"
#include "kernels/ref/rmsnorm.h"
#include "kernels/ref/rope.h"

namespace edgewise::kernels::ref {
namespace {

using C = std::complex<double>;
using Values = std::vector<double>;
using Complexes = std::vector<C>;

constexpr double kStep = 1e-30;
constexpr uint64_t kSeed = 7;

class Gradient : public testing::Test {
 protected:
  Gradient() { RecordProperty("seed", std::to_string(kSeed)); }
  Rng rng{kSeed, RngStream::kTest};

  Values Normal(int64_t n, double scale = 1) {
    Values v(static_cast<size_t>(n));
    for (double& x : v) x = scale * rng.NextNormal();
    return v;
  }

  // d f / d x_i for every i, compared with gradient: f is a real function of x alone.
  static void Check(const Values& x, const Values& gradient,
                    const std::function<C(const Complexes&)>& f, const char* what) {
    ASSERT_EQ(x.size(), gradient.size());
    Complexes z(x.begin(), x.end());
    double largest = 0;
    for (double g : gradient) largest = std::max(largest, std::fabs(g));
    for (size_t i = 0; i < x.size(); ++i) {
      z[i] = C(x[i], kStep);
      const double derivative = f(z).imag() / kStep;
      z[i] = x[i];
      ASSERT_NEAR(gradient[i], derivative, 1e-12 * (largest + std::fabs(derivative)))
          << what << "[" << i << "]";
    }
  }
};

Complexes Lift(const Values& v) { return {v.begin(), v.end()}; }

C Inner(const Complexes& a, const Values& b) {
  C sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST_F(Gradient, RmsNorm) {
  const int64_t rows = 3, n = 5;
  const double eps = 1e-3;
  for (bool plus_one : {false, true}) {
    const Values x = Normal(rows * n), w = Normal(n), dy = Normal(rows * n);
    Values y(x.size()), rstd(rows), dx(x.size()), dw(w.size());
    RmsNorm<double>(rows, n, eps, plus_one, x.data(), w.data(), y.data(), rstd.data());
    RmsNormVjp<double>(rows, n, plus_one, x.data(), w.data(), rstd.data(), dy.data(), dx.data(),
                       dw.data());
    auto f = [&](const Complexes& xc, const Complexes& wc) {
      Complexes out(x.size()), scale(rows);
      RmsNorm<C>(rows, n, eps, plus_one, xc.data(), wc.data(), out.data(), scale.data());
      return Inner(out, dy);
    };
    Check(
        x, dx, [&](const Complexes& z) { return f(z, Lift(w)); }, "dx");
    Check(
        w, dw, [&](const Complexes& z) { return f(Lift(x), z); }, "dweight");
  }
}

TEST_F(Gradient, RopeIsUndoneByItsInverse) {
  const int64_t rows = 4, heads = 2, d = 6;
  const Values x = Normal(rows * heads * d);
  Values cosine, sine;
  for (int p = 0; p < 5; ++p) {
    for (int i = 0; i < d / 2; ++i) {
      cosine.push_back(std::cos(p * (i + 0.3)));
      sine.push_back(std::sin(p * (i + 0.3)));
    }
  }
  const int32_t positions[] = {0, 4, 2, 2};
  Values y = x, dy = Normal(rows * heads * d);
  Rope<double>(rows, heads, d, y.data(), heads * d, positions, cosine.data(), sine.data(), false);
  Values dx = dy;
  Rope<double>(rows, heads, d, dx.data(), heads * d, positions, cosine.data(), sine.data(), true);
  Check(
      x, dx,
      [&](const Complexes& z) {
        Complexes out = z;
        const Complexes cc = Lift(cosine), ss = Lift(sine);
        Rope<C>(rows, heads, d, out.data(), heads * d, positions, cc.data(), ss.data(), false);
        return Inner(out, dy);
      },
      "dx");
}

TEST_F(Gradient, Gated) {
  for (Activation act : {Activation::kSilu, Activation::kGeluTanh}) {
    const Values g = Normal(20, 2), u = Normal(20), d = Normal(20);
    Values dg(20), du(20);
    GatedVjp<double>(act, 20, g.data(), u.data(), d.data(), dg.data(), du.data());
    auto f = [&](const Complexes& gc, const Complexes& uc) {
      Complexes out(20);
      Gated<C>(act, 20, gc.data(), uc.data(), out.data());
      return Inner(out, d);
    };
    Check(
        g, dg, [&](const Complexes& z) { return f(z, Lift(u)); }, "dgate");
    Check(
        u, du, [&](const Complexes& z) { return f(Lift(g), z); }, "dup");
  }
}

TEST_F(Gradient, GeluByCentralDifference) {
  // erf has no complex version here. Error of the difference: h^2 f'''/6 + 2^-52 / h.
  const double h = 1e-5;
  for (double x : {-4.0, -1.0, -0.1, 0.0, 0.5, 2.0, 7.0}) {
    const double difference =
        (ActivationValue(Activation::kGelu, x + h) - ActivationValue(Activation::kGelu, x - h)) /
        (2 * h);
    EXPECT_NEAR(ActivationDerivative(Activation::kGelu, x), difference, 1e-9);
  }
}

TEST_F(Gradient, ActivationsAtTheEnds) {
  for (Activation act : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    EXPECT_EQ(ActivationValue(act, 1e4), 1e4);
    EXPECT_EQ(ActivationDerivative(act, 1e4), 1);
    EXPECT_EQ(ActivationDerivative(act, -1e4), 0);
  }
}

TEST_F(Gradient, Linear) {
  const int64_t m = 3, out = 4, in = 5, r = 2;
  const Values x = Normal(m * in), w = Normal(out * in), bias = Normal(out), a = Normal(r * in),
               b = Normal(out * r), dy = Normal(m * out);
  const double scale = 0.7;
  Values xa(m * r), y(m * out), dxa(m * r), dx(x.size()), dw(w.size()), dbias(out), da(a.size()),
      db(b.size());
  LoraForward<double>(m, out, in, r, scale, x.data(), a.data(), b.data(), xa.data(), y.data());
  LinearVjp<double>(m, out, in, x.data(), w.data(), dy.data(), dx.data(), dw.data(), dbias.data());
  LoraVjp<double>(m, out, in, r, scale, x.data(), xa.data(), a.data(), b.data(), dy.data(),
                  dxa.data(), da.data(), db.data(), dx.data());
  auto f = [&](const Complexes& X, const Complexes& W, const Complexes& B, const Complexes& A,
               const Complexes& L) {
    Complexes Y(m * out), XA(m * r);
    LinearForward<C>(m, out, in, X.data(), W.data(), B.data(), Y.data());
    LoraForward<C>(m, out, in, r, scale, X.data(), A.data(), L.data(), XA.data(), Y.data());
    return Inner(Y, dy);
  };
  const Complexes X = Lift(x), W = Lift(w), B = Lift(bias), A = Lift(a), L = Lift(b);
  Check(
      x, dx, [&](const Complexes& z) { return f(z, W, B, A, L); }, "dx");
  Check(
      w, dw, [&](const Complexes& z) { return f(X, z, B, A, L); }, "dw");
  Check(
      bias, dbias, [&](const Complexes& z) { return f(X, W, z, A, L); }, "dbias");
  Check(
      a, da, [&](const Complexes& z) { return f(X, W, B, z, L); }, "da");
  Check(
      b, db, [&](const Complexes& z) { return f(X, W, B, A, z); }, "db");
}

TEST_F(Gradient, Attention) {
  for (float softcap : {0.0f, 2.0f}) {
    const AttentionShape shape = {4, 2, 3, 0.5f, softcap};
    const int64_t len = 6, width = 12, kv_width = 6;
    const int32_t first[] = {0, 0, 0, 3, 3, 4};
    const AttentionMask mask = {first, 0};
    const Values q = Normal(len * width), k = Normal(len * kv_width), v = Normal(len * kv_width),
                 dout = Normal(len * width);
    Values out(q.size()), lse(4 * len), dq(q.size()), dk(k.size()), dv(v.size());
    Attention<double>(shape, mask, len, q.data(), width, k.data(), v.data(), kv_width, out.data(),
                      width, lse.data());
    AttentionVjp<double>(shape, mask, len, q.data(), width, k.data(), v.data(), kv_width,
                         out.data(), dout.data(), width, lse.data(), dq.data(), width, dk.data(),
                         dv.data(), kv_width);
    auto f = [&](const Complexes& Q, const Complexes& K, const Complexes& V) {
      Complexes O(q.size());
      Attention<C>(shape, mask, len, Q.data(), width, K.data(), V.data(), kv_width, O.data(), width,
                   nullptr);
      return Inner(O, dout);
    };
    Check(
        q, dq, [&](const Complexes& z) { return f(z, Lift(k), Lift(v)); }, "dq");
    Check(
        k, dk, [&](const Complexes& z) { return f(Lift(q), z, Lift(v)); }, "dk");
    Check(
        v, dv, [&](const Complexes& z) { return f(Lift(q), Lift(k), z); }, "dv");
  }
}

TEST_F(Gradient, HeadLoss) {
  for (double softcap : {0.0, 3.0}) {
    const int64_t tokens = 4, n = 5, vocab = 7, r = 2;
    const Values h = Normal(tokens * n), w = Normal(vocab * n), a = Normal(r * n),
                 b = Normal(vocab * r), weights = {1, 2, 0.5, 1};
    const int32_t targets[] = {3, -1, 6, 0};
    Values dh(h.size()), dw(w.size()), da(a.size()), db(b.size());
    HeadLossProblem<double> p = {tokens, n, vocab, h.data(), w.data(), targets, weights.data()};
    p.softcap = softcap;
    p.grad_scale = 0.3;
    p.lora_r = r;
    p.lora_scale = 0.8;
    p.lora_a = a.data();
    p.lora_b = b.data();
    p.dhidden = dh.data();
    p.dhead = dw.data();
    p.dlora_a = da.data();
    p.dlora_b = db.data();
    HeadLoss(p);
    const Complexes weights_c = Lift(weights);
    auto f = [&](const Complexes& H, const Complexes& W, const Complexes& A, const Complexes& B) {
      HeadLossProblem<C> c = {tokens, n, vocab, H.data(), W.data(), targets, weights_c.data()};
      c.softcap = softcap;
      c.lora_r = r;
      c.lora_scale = 0.8;
      c.lora_a = A.data();
      c.lora_b = B.data();
      return 0.3 * HeadLoss(c);
    };
    const Complexes H = Lift(h), W = Lift(w), A = Lift(a), B = Lift(b);
    Check(
        h, dh, [&](const Complexes& z) { return f(z, W, A, B); }, "dhidden");
    Check(
        w, dw, [&](const Complexes& z) { return f(H, z, A, B); }, "dhead");
    Check(
        a, da, [&](const Complexes& z) { return f(H, W, z, B); }, "dlora_a");
    Check(
        b, db, [&](const Complexes& z) { return f(H, W, A, z); }, "dlora_b");
  }
}

TEST(AdamW, TwoStepsByHand) {
  AdamWParams p;
  p.lr = 0.1f;
  p.beta1 = 0.5f;
  p.beta2 = 0.75f;
  p.eps = 0;
  p.weight_decay = 0.5f;
  double x = 2, m = 0, v = 0;
  const double g1 = 4, g2 = -2;
  AdamW<double>(p, 1, &x, &g1, &m, &v);
  // The first step moves by lr sign(g) after the decay.
  EXPECT_NEAR(x, 2 * (1 - 0.05) - 0.1, 1e-7);
  p.step = 2;
  AdamW<double>(p, 1, &x, &g2, &m, &v);
  EXPECT_NEAR(m, 0.5 * 2 + 0.5 * -2, 1e-12);
  EXPECT_NEAR(v, 0.75 * 4 + 0.25 * 4, 1e-12);
  EXPECT_NEAR(x, 1.8 * 0.95, 1e-7);
}

}  // namespace
}  // namespace edgewise::kernels::ref
