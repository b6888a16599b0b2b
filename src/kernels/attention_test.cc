#include "kernels/attention.h"

#include "kernels/kernel_test_util.h"
#include "kernels/ref/attention.h"

namespace edgewise::kernels {
namespace {

struct Case {
  int64_t q_heads, kv_heads, d, len;
  int64_t offset = 0;  // keys before the first query
  float softcap = 0;
  double scale = 1;  // of the random inputs
};

class AttentionKernel : public EveryIsa {
 protected:
  std::vector<float> q, k, v, dout;
  std::vector<int32_t> first;
  AttentionShape shape;
  int64_t len = 0, kv_len = 0, ldq = 0, ldkv = 0;

  // Documents of random lengths and, in one case of two, a sliding window.
  void Make(const Case& c) {
    shape = {c.q_heads, c.kv_heads, c.d, 1.0f / std::sqrt(static_cast<float>(c.d)), c.softcap};
    len = c.len;
    kv_len = c.len + c.offset;
    ldq = c.q_heads * c.d + 5;
    ldkv = c.kv_heads * c.d + 3;
    q = Normal(len * ldq, c.scale);
    k = Normal(kv_len * ldkv, c.scale);
    v = Normal(kv_len * ldkv, c.scale);
    dout = Normal(len * ldq, c.scale);
    first.clear();
    int32_t start = 0;
    const auto window = static_cast<int32_t>(rng.NextBelow(2) == 0 ? kv_len : 1 + kv_len / 3);
    for (int64_t t = 0; t < len; ++t) {
      const auto position = static_cast<int32_t>(c.offset + t);
      if (rng.NextBelow(40) == 0) start = position;
      first.push_back(std::max(start, position - window + 1));
    }
  }
  AttentionMask Mask() const { return {first.data(), kv_len - len}; }

  void Forward(ExecContext& c, std::vector<float>& out, std::vector<float>& lse) const {
    out.assign(q.size(), 0);
    lse.assign(static_cast<size_t>(shape.q_heads * len), 0);
    AttentionForward(c, shape, Mask(), len, q.data(), ldq, k.data(), v.data(), ldkv, out.data(),
                     ldq, lse.data());
  }
  struct Grads {
    std::vector<float> dq, dk, dv;
  };
  Grads Backward(ExecContext& c, const std::vector<float>& out,
                 const std::vector<float>& lse) const {
    Grads g = {std::vector<float>(q.size()), std::vector<float>(k.size()),
               std::vector<float>(v.size())};
    AttentionBackward(c, shape, Mask(), len, q.data(), ldq, k.data(), v.data(), ldkv, out.data(),
                      dout.data(), ldq, lse.data(), g.dq.data(), ldq, g.dk.data(), g.dv.data(),
                      ldkv);
    return g;
  }

  // Bounds. A score is a sum of d products: |error| <= es = (d + 4) u scale sum |q||k|, and so is
  // the error of a log-sum-exp plus the roundings of its own sum. A weight p = exp(s - lse) is then
  // off by a factor 1 + ep, ep = 2 es + (keys + 16) u (the vector exponential: 3 u; a running sum
  // over tiles: at most one rounding per key and correction). The soft cap has slope <= 1 and its
  // own error, 8 u softcap. Weights under 2^-125 count as zero. Everything after is sums of
  // products of these, bounded by the same sums of magnitudes times (ep + terms u).
  static constexpr double kFlushed = 0x1p-124;
  struct Bounds {
    std::vector<double> out, lse, dq, dk, dv;
  };
  Bounds Bound(const std::vector<double>& out, const std::vector<double>& lse) const {
    const int64_t d = shape.head_dim, group = shape.q_heads / shape.kv_heads;
    Bounds b = {std::vector<double>(q.size()), std::vector<double>(lse.size()),
                std::vector<double>(q.size()), std::vector<double>(k.size()),
                std::vector<double>(v.size())};
    for (int64_t h = 0; h < shape.q_heads; ++h) {
      const int64_t hq = h * d, kv = h / group * d;
      for (int64_t t = 0; t < len; ++t) {
        const int64_t last = kv_len - len + t, f = first[static_cast<size_t>(t)];
        const auto keys = static_cast<double>(last - f + 1);
        std::vector<double> s;
        double es = 0;
        auto at = [](const std::vector<float>& x, int64_t i) {
          return static_cast<double>(x[static_cast<size_t>(i)]);
        };
        for (int64_t j = f; j <= last; ++j) {
          double dot = 0, magnitude = 0;
          for (int64_t i = 0; i < d; ++i) {
            const double p = at(q, t * ldq + hq + i) * at(k, j * ldkv + kv + i);
            dot += p;
            magnitude += std::fabs(p);
          }
          dot *= shape.scale;
          if (shape.softcap > 0) dot = shape.softcap * std::tanh(dot / shape.softcap);
          es = std::max(es, static_cast<double>(d + 4) * kUnit * shape.scale * magnitude +
                                8 * kUnit * (shape.softcap + std::fabs(dot)));
          s.push_back(dot);
        }
        const double row_lse = lse[static_cast<size_t>(h * len + t)];
        const double ep = 2 * es + (keys + 16 + 4 * std::fabs(row_lse)) * kUnit;
        b.lse[static_cast<size_t>(h * len + t)] = ep;
        double delta = 0;
        for (int64_t i = 0; i < d; ++i) {
          delta +=
              std::fabs(at(dout, t * ldq + hq + i) * out[static_cast<size_t>(t * ldq + hq + i)]);
        }
        for (int64_t j = f; j <= last; ++j) {
          const double p = std::exp(s[static_cast<size_t>(j - f)] - row_lse);
          double dp = 0;
          for (int64_t i = 0; i < d; ++i) {
            dp += std::fabs(at(dout, t * ldq + hq + i) * at(v, j * ldkv + kv + i));
          }
          const double terms = static_cast<double>(len + 2 * d + 24) * kUnit;
          const double ds = (p * (4 * ep + 2 * terms) + kFlushed) * (dp + delta) * shape.scale;
          for (int64_t i = 0; i < d; ++i) {
            const auto qi = static_cast<size_t>(t * ldq + hq + i);
            const auto ki = static_cast<size_t>(j * ldkv + kv + i);
            b.out[qi] += (p * (2 * ep + (keys + 8) * kUnit) + kFlushed) *
                         std::fabs(at(v, j * ldkv + kv + i));
            b.dq[qi] += ds * std::fabs(at(k, j * ldkv + kv + i));
            b.dk[ki] += ds * std::fabs(at(q, t * ldq + hq + i));
            b.dv[ki] += (p * (ep + terms) + kFlushed) * std::fabs(at(dout, t * ldq + hq + i));
          }
        }
      }
    }
    return b;
  }

  void Check(const Case& c) {
    Make(c);
    std::vector<float> out, lse;
    Forward(*ctx, out, lse);
    const auto Q = Double(q), K = Double(k), V = Double(v), D = Double(dout);
    std::vector<double> O(q.size()), L(lse.size());
    ref::Attention<double>(shape, Mask(), len, Q.data(), ldq, K.data(), V.data(), ldkv, O.data(),
                           ldq, L.data());
    const Bounds b = Bound(O, L);
    const std::string name = std::to_string(c.q_heads) + "/" + std::to_string(c.kv_heads) + "x" +
                             std::to_string(c.d) + ", length " + std::to_string(c.len) + "+" +
                             std::to_string(c.offset) + ", cap " + std::to_string(c.softcap);
    ExpectWithin(out, O, b.out, "out " + name);
    ExpectWithin(lse, L, b.lse, "lse " + name);
    if (c.offset > 0) return;
    const Grads g = Backward(*ctx, out, lse);
    std::vector<double> dq(q.size()), dk(k.size()), dv(v.size());
    ref::AttentionVjp<double>(shape, Mask(), len, Q.data(), ldq, K.data(), V.data(), ldkv, O.data(),
                              D.data(), ldq, L.data(), dq.data(), ldq, dk.data(), dv.data(), ldkv);
    ExpectWithin(g.dq, dq, b.dq, "dq " + name);
    ExpectWithin(g.dk, dk, b.dk, "dk " + name);
    ExpectWithin(g.dv, dv, b.dv, "dv " + name);
  }
};
EW_EVERY_ISA(AttentionKernel);

TEST_P(AttentionKernel, EqualsReference) {
  for (int64_t d : {1, 7, 16, 33, 64}) {
    for (int64_t n : {1, 3, 17, 64, 65, 150}) Check({2, 1, d, n});
  }
  Check({1, 1, 80, 130});
  Check({6, 2, 64, 200});
  Check({4, 4, 128, 70});
}

TEST_P(AttentionKernel, EqualsReferenceWithSoftcap) {
  Check({4, 2, 32, 100, 0, 2.0f});
  Check({4, 2, 32, 100, 0, 50.0f});
}

TEST_P(AttentionKernel, EqualsReferenceAfterACache) {
  for (int64_t offset : {1, 63, 64, 100, 333}) {
    Check({6, 2, 64, 1, offset});
    Check({4, 1, 20, 5, offset});
  }
}

TEST_P(AttentionKernel, EqualsReferenceWithExtremeScores) {
  // Scores of thousands: nearly one-hot weights, and overflow unless the maximum is taken out.
  Check({2, 1, 16, 90, 0, 0, 30});
  Check({2, 1, 16, 90, 0, 0, 1e-8});
}

TEST_P(AttentionKernel, SameBitsWithAnyNumberOfThreads) {
  Make({6, 2, 40, 300});
  std::vector<float> out, lse;
  Forward(*MakeContext(GetParam(), 1), out, lse);
  const Grads g = Backward(*MakeContext(GetParam(), 1), out, lse);
  for (int threads : {2, 3}) {
    auto c = MakeContext(GetParam(), threads);
    std::vector<float> out2, lse2;
    Forward(*c, out2, lse2);
    EXPECT_TRUE(SameBits(out, out2) && SameBits(lse, lse2));
    const Grads g2 = Backward(*c, out, lse);
    EXPECT_TRUE(SameBits(g.dq, g2.dq) && SameBits(g.dk, g2.dk) && SameBits(g.dv, g2.dv));
  }
}

TEST_P(AttentionKernel, DecodedRowsEqualPrefilledOnes) {
  Make({6, 2, 64, 150});
  std::vector<float> out, lse;
  Forward(*ctx, out, lse);
  for (int64_t t : {0, 1, 63, 64, 100, 149}) {
    std::vector<float> row(static_cast<size_t>(ldq));
    AttentionForward(*ctx, shape, {first.data() + t, t}, 1, q.data() + t * ldq, ldq, k.data(),
                     v.data(), ldkv, row.data(), ldq, nullptr);
    row.resize(static_cast<size_t>(shape.q_heads * shape.head_dim));
    const auto begin = out.begin() + t * ldq;
    EXPECT_TRUE(SameBits(row, {begin, begin + static_cast<int64_t>(row.size())})) << t;
  }
}

}  // namespace
}  // namespace edgewise::kernels
