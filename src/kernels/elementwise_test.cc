#include "kernels/elementwise.h"

#include <limits>

#include "kernels/adamw.h"
#include "kernels/kernel_table.h"
#include "kernels/kernel_test_util.h"
#include "kernels/ref/adamw.h"
#include "kernels/ref/gated.h"
#include "kernels/ref/rmsnorm.h"
#include "kernels/ref/rope.h"

namespace edgewise::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
// Results below 2^-125 may be flushed to zero.
constexpr double kTiny = 0x1p-120;

class Elementwise : public EveryIsa {};
EW_EVERY_ISA(Elementwise);

TEST_P(Elementwise, RmsNormEqualsReference) {
  for (int64_t n : {1, 3, 17, 64, 576, 1000}) {
    for (bool plus_one : {false, true}) {
      const int64_t rows = 9;
      const auto x = Normal(rows * n, 3), w = Normal(n), dy = Normal(rows * n);
      const auto dx0 = Normal(rows * n), dw0 = Normal(n);
      const auto X = Double(x), W = Double(w), D = Double(dy);
      std::vector<float> y(x.size()), rstd(static_cast<size_t>(rows));
      std::vector<double> Y(x.size()), R(rstd.size()), DX = Double(dx0), DW = Double(dw0);
      ref::RmsNorm<double>(rows, n, 1e-6, plus_one, X.data(), W.data(), Y.data(), R.data());
      RmsNormForward(*ctx, rows, n, 1e-6f, plus_one, x.data(), w.data(), y.data(), rstd.data());
      // A sum of n squares is right to n + 1 roundings, its root to half of that.
      const double e = (static_cast<double>(n) + 16) * kUnit;
      std::vector<double> bound, rbound;
      for (size_t i = 0; i < Y.size(); ++i) {
        bound.push_back(e * std::fabs(X[i] * R[i / static_cast<size_t>(n)]) *
                        (1 + std::fabs(W[i % static_cast<size_t>(n)])));
      }
      for (double r : R) rbound.push_back(e * r);
      ExpectWithin(y, Y, bound, "y");
      ExpectWithin(rstd, R, rbound, "rstd");

      ref::RmsNormVjp<double>(rows, n, plus_one, X.data(), W.data(), R.data(), D.data(), DX.data(),
                              DW.data());
      std::vector<float> dx = dx0, dw = dw0;
      RmsNormBackward(*ctx, rows, n, plus_one, x.data(), w.data(), rstd.data(), dy.data(),
                      dx.data(), true, dw.data());
      std::vector<double> dx_bound(x.size()), dw_bound = Abs(dw0);
      for (int64_t r = 0; r < rows; ++r) {
        const double s = R[static_cast<size_t>(r)];
        double sum = 0;
        auto u = [&](int64_t i) {
          const double g = std::fabs(W[static_cast<size_t>(i)]) + (plus_one ? 1 : 0);
          return std::fabs(D[static_cast<size_t>(r * n + i)]) * g;
        };
        for (int64_t i = 0; i < n; ++i) sum += u(i) * std::fabs(X[static_cast<size_t>(r * n + i)]);
        for (int64_t i = 0; i < n; ++i) {
          const auto at = static_cast<size_t>(r * n + i);
          const double xi = std::fabs(X[at]);
          dx_bound[at] = 3 * e * s * (u(i) + xi * s * s * sum / static_cast<double>(n)) +
                         2 * kUnit * std::fabs(static_cast<double>(dx0[at]));
          dw_bound[static_cast<size_t>(i)] += std::fabs(D[at]) * xi * s;
        }
      }
      for (double& b : dw_bound) b *= e + static_cast<double>(rows) * kUnit;
      ExpectWithin(dx, DX, dx_bound, "dx");
      ExpectWithin(dw, DW, dw_bound, "dweight");
      // In place, dx over dy.
      std::vector<float> over = dy, fresh(dy.size());
      RmsNormBackward(*ctx, rows, n, plus_one, x.data(), w.data(), rstd.data(), dy.data(),
                      fresh.data(), false, nullptr);
      RmsNormBackward(*ctx, rows, n, plus_one, x.data(), w.data(), rstd.data(), over.data(),
                      over.data(), false, nullptr);
      EXPECT_TRUE(SameBits(over, fresh));
    }
  }
}

TEST_P(Elementwise, RopeEqualsReferenceAndIsUndone) {
  for (int64_t d : {2, 6, 64, 80}) {
    const int64_t rows = 11, heads = 3, ld = heads * d + 2;
    const auto x = Normal(rows * ld);
    std::vector<float> cosine, sine;
    for (int p = 0; p < 20; ++p) {
      for (int64_t i = 0; i < d / 2; ++i) {
        cosine.push_back(static_cast<float>(std::cos(p / (1.0 + static_cast<double>(i)))));
        sine.push_back(static_cast<float>(std::sin(p / (1.0 + static_cast<double>(i)))));
      }
    }
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < rows; ++r) positions.push_back(static_cast<int32_t>(rng.NextBelow(20)));
    for (bool inverse : {false, true}) {
      auto y = x;
      auto Y = Double(x);
      const auto C = Double(cosine), S = Double(sine);
      RopeApply(*ctx, rows, heads, d, y.data(), ld, positions.data(), cosine.data(), sine.data(),
                inverse);
      ref::Rope<double>(rows, heads, d, Y.data(), ld, positions.data(), C.data(), S.data(),
                        inverse);
      // Two products and a sum of numbers below 8.
      ExpectWithin(y, Y, std::vector<double>(Y.size(), 3 * kUnit * 16), "rope");
    }
  }
}

TEST_P(Elementwise, GatedEqualsReference) {
  for (Activation act : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    for (int64_t n : {1, 5, 16, 33, 20000}) {
      auto gate = Normal(n, 4);
      const auto up = Normal(n), dout = Normal(n);
      const float ends[] = {0, -0.0f, 1e-30f, 20, -20, 90, -90, 1e20f, -1e20f, 5, -5};
      for (size_t i = 0; i < std::size(ends) && i < gate.size(); ++i) gate[i] = ends[i];
      const auto G = Double(gate), U = Double(up), D = Double(dout);
      std::vector<float> y(gate.size()), dg(gate.size()), du(gate.size());
      std::vector<double> Y(y.size()), DG(y.size()), DU(y.size()), b, bg, bu;
      GatedForward(*ctx, act, n, gate.data(), up.data(), y.data());
      GatedBackward(*ctx, act, n, gate.data(), up.data(), dout.data(), dg.data(), du.data());
      ref::Gated<double>(act, n, G.data(), U.data(), Y.data());
      ref::GatedVjp<double>(act, n, G.data(), U.data(), D.data(), DG.data(), DU.data());
      for (size_t i = 0; i < Y.size(); ++i) {
        // The argument a of the exponential carries a few roundings, which the result sees
        // multiplied by a: relative error (16 + 4 |a|) u, where |a| > 100 leaves nothing but 0 and
        // 1. Derivatives add terms of size |a| that cancel. kGelu in fp32 computes 1 + erf, which
        // cancels for negative arguments: absolute in place of relative there. So does the
        // reference in double (the last term).
        const double g = std::fabs(G[i]);
        const double a = act == Activation::kSilu ? g : 1.6 * (g + 0.045 * g * g * g);
        const double e = (16 + 4 * std::min(a, 100.0)) * kUnit;
        const double value = act == Activation::kGelu ? std::min(g, 1e3)
                                                      : std::fabs(ref::ActivationValue(act, G[i]));
        const double big = g >= 1e3 ? g : 0;  // act(g) = g there
        const double own = g * 0x1p-52;
        b.push_back(std::fabs(U[i]) * (e * (value + big) + own) + kTiny);
        bu.push_back(std::fabs(D[i]) * (e * (value + big) + own) + kTiny);
        bg.push_back(e * std::fabs(D[i] * U[i]) * (1.5 + std::min(a, 100.0)) + kTiny);
      }
      ExpectWithin(y, Y, b, "value");
      ExpectWithin(dg, DG, bg, "dgate");
      ExpectWithin(du, DU, bu, "dup");
      // In place.
      auto g2 = gate, u2 = up;
      GatedBackward(*ctx, act, n, g2.data(), u2.data(), dout.data(), g2.data(), u2.data());
      EXPECT_TRUE(SameBits(g2, dg) && SameBits(u2, du));
      u2 = up;
      GatedForward(*ctx, act, n, gate.data(), u2.data(), u2.data());
      EXPECT_TRUE(SameBits(u2, y));
    }
  }
}

TEST_P(Elementwise, Embedding) {
  const int64_t vocab = 7, h = 37;
  const auto table = Normal(vocab * h), dout = Normal(5 * h);
  const int32_t ids[] = {6, 0, 3, 3, 6};
  std::vector<float> out(static_cast<size_t>(5 * h));
  EmbeddingForward(*ctx, 5, ids, WeightRef::Dense(table.data(), vocab, h), 2.0f, out.data());
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t i = 0; i < h; ++i) {
      EXPECT_EQ(out[static_cast<size_t>(t * h + i)],
                2.0f * table[static_cast<size_t>(ids[t] * h + i)]);
    }
  }
  std::vector<float> grad(table.size());
  EmbeddingBackward(*ctx, 5, ids, vocab, h, 0.5f, dout.data(), grad.data());
  for (int64_t i = 0; i < h; ++i) {
    auto d = [&](int64_t t) { return 0.5f * dout[static_cast<size_t>(t * h + i)]; };
    EXPECT_EQ(grad[static_cast<size_t>(i)], d(1));
    EXPECT_EQ(grad[static_cast<size_t>(3 * h + i)], d(2) + d(3));
    EXPECT_EQ(grad[static_cast<size_t>(6 * h + i)], d(0) + d(4));
    EXPECT_EQ(grad[static_cast<size_t>(5 * h + i)], 0);
  }
}

TEST_P(Elementwise, SumsAndFiniteness) {
  const auto x = Normal(50001);
  auto y = Normal(50001);
  double sum = 0;
  for (float v : x) sum += static_cast<double>(v) * v;
  EXPECT_NEAR(SumSquares(*ctx, 50001, x.data()), sum, 1e-10 * sum);
  for (int threads : {1, 3}) {
    EXPECT_EQ(SumSquares(*MakeContext(GetParam(), threads), 50001, x.data()),
              SumSquares(*ctx, 50001, x.data()));
  }
  EXPECT_TRUE(AllFinite(*ctx, 50001, x.data()));
  for (float bad : {kInf, -kInf, kNaN}) {
    for (size_t at : {size_t{0}, size_t{33333}, size_t{50000}}) {
      auto z = x;
      z[at] = bad;
      EXPECT_FALSE(AllFinite(*ctx, 50001, z.data()));
    }
  }
  auto z = x;
  std::fill(z.begin(), z.end(), std::numeric_limits<float>::max());
  EXPECT_TRUE(AllFinite(*ctx, 50001, z.data()));
  const auto y0 = y;
  AddInPlace(*ctx, 50001, x.data(), y.data());
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], x[i] + y0[i]);
}

TEST_P(Elementwise, AdamWEqualsReference) {
  const int64_t n = 20003;
  AdamWParams p;
  p.lr = 1e-2f;
  p.weight_decay = 0.1f;
  p.grad_scale = 0.25f;
  auto param = Normal(n);
  std::vector<float> m(param.size()), v(param.size());
  auto P = Double(param), M = Double(m), V = Double(v);
  for (p.step = 1; p.step <= 3; ++p.step) {
    auto grad = Normal(n);
    grad[0] = 0;
    AdamWStep(*ctx, p, n, param.data(), grad.data(), m.data(), v.data());
    const auto G = Double(grad);
    ref::AdamW<double>(p, n, P.data(), G.data(), M.data(), V.data());
    std::vector<double> bp, bm, bv;
    for (size_t i = 0; i < P.size(); ++i) {
      // Few roundings each; an update is at most about lr / sqrt(1 - beta2) and inherits the
      // relative errors of m (whose terms may cancel) and sqrt(v).
      const double root = std::sqrt(V[i]) + 1e-12;
      bm.push_back(8 * kUnit * (std::fabs(M[i]) + 1));
      bv.push_back(8 * static_cast<double>(p.step) * kUnit * (V[i] + 1e-12));
      bp.push_back(8 * static_cast<double>(p.step) * kUnit * std::fabs(P[i]) +
                   p.lr * 40 * static_cast<double>(p.step) * kUnit *
                       (1 + (std::fabs(M[i]) + 1) / root));
    }
    ExpectWithin(m, M, bm, "m");
    ExpectWithin(v, V, bv, "v");
    ExpectWithin(param, P, bp, "param");
  }
}

}  // namespace
}  // namespace edgewise::kernels
