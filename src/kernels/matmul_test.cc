#include "kernels/matmul.h"

#include <limits>

#include "kernels/gemm_driver.h"
#include "kernels/kernel_test_util.h"
#include "kernels/linear.h"
#include "kernels/ref/matmul.h"

namespace edgewise::kernels {
namespace {

enum class Kind { kNT, kNN, kTN };

struct Problem {
  Kind kind;
  int64_t m, n, k;
  float alpha = 1;
  bool add = false;
};

std::string Name(const Problem& p) {
  static const char* kinds[] = {"NT", "NN", "TN"};
  return std::string(kinds[static_cast<int>(p.kind)]) + " " + std::to_string(p.m) + "x" +
         std::to_string(p.n) + "x" + std::to_string(p.k) + (p.add ? " add" : "");
}

class MatMul : public EveryIsa {
 protected:
  // Row strides are longer than the rows; the padding must survive.
  static constexpr int64_t kPad = 3;

  static void Run(ExecContext& c, const Problem& p, const std::vector<float>& a,
                  const std::vector<float>& b, std::vector<float>& out) {
    const Accumulate acc = p.add ? Accumulate::kAdd : Accumulate::kOverwrite;
    const int64_t lda = (p.kind == Kind::kTN ? p.m : p.k) + kPad;
    const int64_t ldb = (p.kind == Kind::kNT ? p.k : p.n) + kPad;
    const int64_t ldc = p.n + kPad;
    WeightRef w = p.kind == Kind::kNT ? WeightRef::Dense(b.data(), p.n, p.k)
                                      : WeightRef::Dense(b.data(), p.k, p.n);
    w.ld = ldb;
    switch (p.kind) {
      case Kind::kNT:
        return MatMulNT(c, p.m, p.n, p.k, p.alpha, a.data(), lda, w, out.data(), ldc, acc);
      case Kind::kNN:
        return MatMulNN(c, p.m, p.n, p.k, p.alpha, a.data(), lda, w, out.data(), ldc, acc);
      case Kind::kTN:
        return MatMulTN(c, p.m, p.n, p.k, p.alpha, a.data(), lda, b.data(), ldb, out.data(), ldc,
                        acc);
    }
  }

  void Check(const Problem& p, double scale = 1) {
    const int64_t lda = (p.kind == Kind::kTN ? p.m : p.k) + kPad;
    const int64_t ldb = (p.kind == Kind::kNT ? p.k : p.n) + kPad;
    const int64_t ldc = p.n + kPad;
    const auto a = Normal((p.kind == Kind::kTN ? p.k : p.m) * lda, scale);
    const auto b = Normal((p.kind == Kind::kNT ? p.n : p.k) * ldb, scale);
    auto c = Normal(p.m * ldc, scale);
    std::vector<double> expected = Double(c), magnitude = Abs(c);
    auto reference = [&](const std::vector<double>& x, const std::vector<double>& y, double alpha,
                         std::vector<double>& out) {
      const auto f = p.kind == Kind::kNT   ? ref::MatMulNT<double>
                     : p.kind == Kind::kNN ? ref::MatMulNN<double>
                                           : ref::MatMulTN<double>;
      f(p.m, p.n, p.k, alpha, x.data(), lda, y.data(), ldb, p.add ? 1.0 : 0.0, out.data(), ldc);
    };
    reference(Double(a), Double(b), p.alpha, expected);
    reference(Abs(a), Abs(b), std::fabs(p.alpha), magnitude);
    // A sum of t terms added one by one in blocks of kGemmKBlock passes at most
    // min(t, block) + t / block + 3 roundings (Higham, "Accuracy and stability", 3.1); padding
    // keeps its value exactly.
    const double roundings =
        static_cast<double>(std::min(p.k, kGemmKBlock) + p.k / kGemmKBlock + 3);
    for (size_t i = 0; i < magnitude.size(); ++i) {
      magnitude[i] = static_cast<int64_t>(i) % ldc < p.n ? magnitude[i] * roundings * kUnit : 0;
    }
    Run(*ctx, p, a, b, c);
    ExpectWithin(c, expected, magnitude, Name(p));
  }
};
EW_EVERY_ISA(MatMul);

TEST_P(MatMul, EqualsReferenceOnRaggedShapes) {
  const int64_t sizes[] = {1, 3, 7, 8, 17, 33, 64};
  for (Kind kind : {Kind::kNT, Kind::kNN, Kind::kTN}) {
    for (int64_t m : sizes) {
      for (int64_t n : sizes) {
        for (int64_t k : {1, 5, 16, 35, 300}) Check({kind, m, n, k, 1.0f, (m + n + k) % 2 == 0});
      }
    }
  }
}

TEST_P(MatMul, EqualsReferenceBeyondOneBlock) {
  for (Kind kind : {Kind::kNT, Kind::kNN, Kind::kTN}) {
    Check({kind, 130, 290, 600, -0.5f, true});
    Check({kind, 61, 8, 777, 2.0f, true});
    Check({kind, 8, 333, 777, 1.0f, false});
    Check({kind, 200, 150, 8, 0.25f, true});
  }
}

TEST_P(MatMul, EqualsReferenceAtExtremeScales) {
  Check({Kind::kNT, 9, 40, 70}, 1e-15);
  Check({Kind::kNT, 9, 40, 70}, 1e15);
}

TEST_P(MatMul, EmptySumsAreZeros) {
  std::vector<float> a(8, 1), c(64, 5);
  MatMulNN(*ctx, 2, 3, 0, 1.0f, a.data(), 4, WeightRef::Dense(a.data(), 0, 3), c.data(), 32);
  EXPECT_EQ(c[0], 0);
  EXPECT_EQ(c[34], 0);
  EXPECT_EQ(c[3], 5);
}

TEST_P(MatMul, PropagatesInfinityAndNaN) {
  std::vector<float> a(2 * 40, 0), b(50 * 40, 1), c(2 * 50);
  a[5] = std::numeric_limits<float>::infinity();
  a[40 + 7] = std::numeric_limits<float>::quiet_NaN();
  MatMulNT(*ctx, 2, 50, 40, 1.0f, a.data(), 40, WeightRef::Dense(b.data(), 50, 40), c.data(), 50);
  for (int64_t j = 0; j < 50; ++j) {
    EXPECT_TRUE(std::isinf(c[static_cast<size_t>(j)]));
    EXPECT_TRUE(std::isnan(c[static_cast<size_t>(50 + j)]));
  }
}

TEST_P(MatMul, SameBitsWithAnyNumberOfThreads) {
  for (Kind kind : {Kind::kNT, Kind::kNN, Kind::kTN}) {
    for (int64_t n : {8, 40, 150}) {
      const Problem p = {kind, 131, n, 530, 1.0f, true};
      const auto a = Normal((p.m + p.k + kPad) * (p.m + p.k + kPad));
      const auto b = Normal((p.n + p.k + kPad) * (p.n + p.k + kPad));
      const auto start = Normal(p.m * (p.n + kPad));
      std::vector<float> first;
      for (int threads : {1, 2, 3}) {
        auto c = start;
        Run(*MakeContext(GetParam(), threads), p, a, b, c);
        if (first.empty()) first = c;
        EXPECT_TRUE(SameBits(first, c)) << Name(p) << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(MatMul, RowsDoNotDependOnTheBatch) {
  for (int64_t n : {8, 100}) {
    const int64_t k = 530, m = 70;
    const auto a = Normal(m * k), b = Normal(n * k);
    std::vector<float> all(static_cast<size_t>(m * n)), few(static_cast<size_t>(m * n));
    const WeightRef w = WeightRef::Dense(b.data(), n, k);
    MatMulNT(*ctx, m, n, k, 1.0f, a.data(), k, w, all.data(), n);
    int64_t row = 0;
    for (int64_t batch : {1, 2, 5, 16, 17, 29}) {
      MatMulNT(*ctx, batch, n, k, 1.0f, a.data() + row * k, k, w, few.data() + row * n, n);
      row += batch;
    }
    EXPECT_TRUE(SameBits(all, few)) << "n = " << n;
  }
}

// With few columns the left matrix is read where it is, else it is packed.
TEST_P(MatMul, ColumnsDoNotDependOnTheOthers) {
  const int64_t m = 150, k = 530, most = 200;
  const auto a = Normal(m * k), b = Normal(most * k);
  std::vector<float> all(static_cast<size_t>(m * most));
  MatMulNT(*ctx, m, most, k, 0.5f, a.data(), k, WeightRef::Dense(b.data(), most, k), all.data(),
           most);
  for (const int64_t n : {17, 32, 64, 65}) {
    std::vector<float> some(static_cast<size_t>(m * n)), want;
    MatMulNT(*ctx, m, n, k, 0.5f, a.data(), k, WeightRef::Dense(b.data(), n, k), some.data(), n);
    for (int64_t i = 0; i < m; ++i) {
      want.insert(want.end(), all.begin() + i * most, all.begin() + i * most + n);
    }
    EXPECT_TRUE(SameBits(some, want)) << "n = " << n;
  }
}

// A gradient of a weight over tokens that come in pieces (kTokenBlock).
TEST_P(MatMul, SumsOverTokensMayComeInPieces) {
  const int64_t k = 600;
  for (const auto& [m, n] : {std::pair{70, 5}, std::pair{70, 40}, std::pair{9, 70}}) {
    const auto a = Normal(k * m), b = Normal(k * n);
    const auto start = Normal(m * n);
    std::vector<float> want = start;
    MatMulTN(*ctx, m, n, k, 0.5f, a.data(), m, b.data(), n, want.data(), n, Accumulate::kAdd);
    for (const int64_t piece : {kTokenBlock, 2 * kTokenBlock}) {
      std::vector<float> got = start;
      for (int64_t k0 = 0; k0 < k; k0 += piece) {
        MatMulTN(*ctx, m, n, std::min(piece, k - k0), 0.5f, a.data() + k0 * m, m, b.data() + k0 * n,
                 n, got.data(), n, Accumulate::kAdd);
      }
      EXPECT_TRUE(SameBits(got, want)) << m << " x " << n << ", pieces of " << piece;
    }
  }
}

TEST_P(MatMul, ReadsHalfPrecisionWeights) {
  for (DType dtype : {DType::kF16, DType::kBF16}) {
    for (int64_t n : {5, 75}) {
      const int64_t m = 20, k = 300;
      const auto a = Normal(m * k), b = Normal(n * k), at = Normal(m * n);
      std::vector<uint16_t> half(b.size());
      std::vector<float> rounded(b.size());
      ConvertFromF32(dtype, b.data(), half.data(), n * k);
      ConvertToF32(dtype, half.data(), rounded.data(), n * k);
      const WeightRef w16 = {n, k, dtype, half.data(), k, nullptr};
      const WeightRef w32 = WeightRef::Dense(rounded.data(), n, k);
      std::vector<float> c16(static_cast<size_t>(m * n)), c32(c16);
      MatMulNT(*ctx, m, n, k, 1.0f, a.data(), k, w16, c16.data(), n);
      MatMulNT(*ctx, m, n, k, 1.0f, a.data(), k, w32, c32.data(), n);
      EXPECT_TRUE(SameBits(c16, c32));
      std::vector<float> d16(static_cast<size_t>(m * k)), d32(d16);
      MatMulNN(*ctx, m, k, n, 1.0f, at.data(), n, w16, d16.data(), k);
      MatMulNN(*ctx, m, k, n, 1.0f, at.data(), n, w32, d32.data(), k);
      EXPECT_TRUE(SameBits(d16, d32));
    }
  }
}

TEST_P(MatMul, LinearAndLoraEqualReference) {
  const int64_t m = 19, in = 70, out = 45, r = 4;
  const float scale = 0.5f;
  const auto x = Normal(m * in), w = Normal(out * in), bias = Normal(out), a = Normal(r * in),
             b = Normal(out * r), dy = Normal(m * out);
  std::vector<float> y(static_cast<size_t>(m * out)), xa(static_cast<size_t>(m * r)), dxa(xa),
      dx(static_cast<size_t>(m * in)), dw(w.size()), db(bias.size()), da(a.size()), dlb(b.size());
  LinearForward(*ctx, m, x.data(), in, WeightRef::Dense(w.data(), out, in), bias.data(), y.data(),
                out);
  LoraForward(*ctx, m, in, out, r, scale, x.data(), in, a.data(), b.data(), xa.data(), y.data(),
              out);
  LinearBackwardInput(*ctx, m, dy.data(), out, WeightRef::Dense(w.data(), out, in), dx.data(), in);
  LinearBackwardWeight(*ctx, m, out, in, dy.data(), out, x.data(), in, dw.data(), db.data());
  LoraBackward(*ctx, m, in, out, r, scale, x.data(), in, xa.data(), a.data(), b.data(), dy.data(),
               out, dxa.data(), da.data(), dlb.data(), dx.data(), in);

  auto run = [&](auto convert) {
    auto X = convert(x), W = convert(w), B = convert(bias), A = convert(a), L = convert(b),
         D = convert(dy);
    std::vector<double> Y(y.size()), XA(xa.size()), DXA(xa.size()), DX(x.size()), DW(w.size()),
        DB(db.size()), DA(a.size()), DL(b.size());
    ref::LinearForward<double>(m, out, in, X.data(), W.data(), B.data(), Y.data());
    ref::LoraForward<double>(m, out, in, r, scale, X.data(), A.data(), L.data(), XA.data(),
                             Y.data());
    ref::LinearVjp<double>(m, out, in, X.data(), W.data(), D.data(), DX.data(), DW.data(),
                           DB.data());
    ref::LoraVjp<double>(m, out, in, r, scale, X.data(), XA.data(), A.data(), L.data(), D.data(),
                         DXA.data(), DA.data(), DL.data(), DX.data());
    return std::vector<std::vector<double>>{Y, XA, DXA, DX, DW, DB, DA, DL};
  };
  const auto expected = run(Double);
  auto bound = run(Abs);
  // Two sums after one another, neither longer than in + out + m.
  for (auto& v : bound) {
    for (double& e : v) e *= static_cast<double>(in + out + m + 8) * kUnit;
  }
  const std::vector<float>* actual[] = {&y, &xa, &dxa, &dx, &dw, &db, &da, &dlb};
  const char* names[] = {"y", "xa", "dxa", "dx", "dw", "dbias", "da", "db"};
  for (size_t i = 0; i < expected.size(); ++i) {
    ExpectWithin(*actual[i], expected[i], bound[i], names[i]);
  }
}

}  // namespace
}  // namespace edgewise::kernels
