#include "kernels/loss.h"

#include "kernels/kernel_test_util.h"
#include "kernels/ref/cross_entropy.h"

namespace edgewise::kernels {
namespace {

struct Case {
  int64_t tokens, h, vocab;
  float softcap = 0;
  int64_t r = 0;
  double scale = 0.3;
  bool all_labelled = false;
};

class HeadLossKernel : public EveryIsa {
 protected:
  Case c;
  std::vector<float> hidden, head, a, b, weights;
  std::vector<int32_t> targets;

  void Make(const Case& which) {
    c = which;
    hidden = Normal(c.tokens * c.h, c.scale);
    head = Normal(c.vocab * c.h, c.scale);
    a = Normal(c.r * c.h, c.scale);
    b = Normal(c.vocab * c.r, c.scale);
    weights.clear();
    targets.clear();
    for (int64_t t = 0; t < c.tokens; ++t) {
      weights.push_back(0.5f + rng.NextFloat());
      const bool label = c.all_labelled || rng.NextBelow(3) != 0;
      targets.push_back(label ? static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(c.vocab)))
                              : -1);
    }
  }

  struct Grads {
    std::vector<float> dhidden, dhead, da, db, token_loss;
    HeadLossResult result;
  };
  Grads Run(ExecContext& context, float skip_below = 0, bool head_gradient = true) const {
    Grads g = {std::vector<float>(hidden.size(), 7),  std::vector<float>(head.size()),
               std::vector<float>(a.size()),          std::vector<float>(b.size()),
               std::vector<float>(targets.size(), 7), {}};
    HeadLossArgs args;
    args.tokens = c.tokens;
    args.hidden = hidden.data();
    args.head = WeightRef::Dense(head.data(), c.vocab, c.h);
    args.targets = targets.data();
    args.weights = weights.data();
    args.softcap = c.softcap;
    args.grad_scale = kGradScale;
    args.dhidden = g.dhidden.data();
    args.dhead = head_gradient ? g.dhead.data() : nullptr;
    args.token_loss = g.token_loss.data();
    args.lora_r = c.r;
    args.lora_scale = kLoraScale;
    args.lora_a = a.data();
    args.lora_b = b.data();
    args.dlora_a = g.da.data();
    args.dlora_b = g.db.data();
    args.skip_below = skip_below;
    g.result = HeadLoss(context, args);
    return g;
  }
  static constexpr float kGradScale = 0.5f, kLoraScale = 0.75f;

  struct Reference {
    std::vector<double> dhidden, dhead, da, db, token_loss;
    double loss = 0;
  };
  Reference Expected() const {
    Reference e = {std::vector<double>(hidden.size()),  std::vector<double>(head.size()),
                   std::vector<double>(a.size()),       std::vector<double>(b.size()),
                   std::vector<double>(targets.size()), 0};
    const auto H = Double(hidden), W = Double(head), A = Double(a), B = Double(b),
               S = Double(weights);
    ref::HeadLossProblem<double> p = {c.tokens,       c.h,     c.vocab, H.data(), W.data(),
                                      targets.data(), S.data()};
    p.softcap = c.softcap;
    p.grad_scale = kGradScale;
    p.lora_r = c.r;
    p.lora_scale = kLoraScale;
    p.lora_a = A.data();
    p.lora_b = B.data();
    p.dhidden = e.dhidden.data();
    p.dhead = e.dhead.data();
    p.dlora_a = e.da.data();
    p.dlora_b = e.db.data();
    p.token_loss = e.token_loss.data();
    e.loss = ref::HeadLoss(p);
    return e;
  }

  // A logit is a sum of h + r products, each |error| <= ez = (h + 2 r + 8) u sum of magnitudes; a
  // probability is then off by a factor 1 + ep, ep = 2 ez + (128 + vocab / 128 + 24) u (sums of
  // exponentials: per tile in fp32, tiles in double). Each gradient is a sum of (probability -
  // [target]) times something whose magnitude is summed here; its own additions are at most
  // vocab-tile, rows, or h long. `skipped` is added to the error of every probability.
  struct Bounds {
    std::vector<double> dhidden, dhead, da, db, token_loss;
  };
  Bounds Bound(double skipped = 0) const {
    Bounds e = {std::vector<double>(hidden.size()), std::vector<double>(head.size()),
                std::vector<double>(a.size()), std::vector<double>(b.size()),
                std::vector<double>(targets.size())};
    const int64_t n = c.h, r = c.r;
    auto at = [](const std::vector<float>& x, int64_t i) {
      return std::fabs(static_cast<double>(x[static_cast<size_t>(i)]));
    };
    for (int64_t t = 0; t < c.tokens; ++t) {
      if (targets[static_cast<size_t>(t)] < 0) continue;
      std::vector<double> ha(static_cast<size_t>(r)), signed_ha(ha), z;
      for (int64_t k = 0; k < r; ++k) {
        for (int64_t i = 0; i < n; ++i) {
          ha[static_cast<size_t>(k)] += at(hidden, t * n + i) * at(a, k * n + i);
          signed_ha[static_cast<size_t>(k)] +=
              static_cast<double>(hidden[static_cast<size_t>(t * n + i)]) *
              a[static_cast<size_t>(k * n + i)];
        }
      }
      double magnitude = 0, max = -1e300, sum = 0;
      for (int64_t v = 0; v < c.vocab; ++v) {
        double m = 0, dot = 0;
        for (int64_t i = 0; i < n; ++i) {
          m += at(hidden, t * n + i) * at(head, v * n + i);
          dot += static_cast<double>(hidden[static_cast<size_t>(t * n + i)]) *
                 head[static_cast<size_t>(v * n + i)];
        }
        for (int64_t k = 0; k < r; ++k) {
          m += kLoraScale * ha[static_cast<size_t>(k)] * at(b, v * r + k);
          dot += static_cast<double>(kLoraScale) * signed_ha[static_cast<size_t>(k)] *
                 b[static_cast<size_t>(v * r + k)];
        }
        if (c.softcap > 0) {
          dot = c.softcap * std::tanh(dot / c.softcap);
          m += c.softcap;
        }
        magnitude = std::max(magnitude, m);
        max = std::max(max, dot);
        z.push_back(dot);
      }
      for (double& s : z) sum += s = std::exp(s - max);
      const double ez = static_cast<double>(n + 2 * r + 8) * kUnit * magnitude;
      const double ep =
          2 * ez + (152 + static_cast<double>(c.vocab) / 128 + std::fabs(max)) * kUnit;
      const double weight = weights[static_cast<size_t>(t)];
      e.token_loss[static_cast<size_t>(t)] =
          weight * (2 * ez + 4 * kUnit * (std::fabs(max) + std::log(sum) + magnitude + 1));
      for (int64_t v = 0; v < c.vocab; ++v) {
        const double p = z[static_cast<size_t>(v)] / sum;
        const double target = v == targets[static_cast<size_t>(t)] ? 1 : 0;
        const double chain = static_cast<double>(c.tokens + n + c.vocab / 128 + 160) * kUnit;
        // Roundings of p - 1 and of the slope 1 - (z / cap)^2 are absolute.
        const double dz = kGradScale * weight *
                          ((p + target) * (3 * ep + chain + 16 * kUnit) + (p < skipped ? p : 0) +
                           0x1p-124);  // smaller ones are flushed to zero
        for (int64_t i = 0; i < n; ++i) {
          double w = at(head, v * n + i);
          for (int64_t k = 0; k < r; ++k) w += kLoraScale * at(b, v * r + k) * at(a, k * n + i);
          e.dhidden[static_cast<size_t>(t * n + i)] += dz * w;
          e.dhead[static_cast<size_t>(v * n + i)] += dz * at(hidden, t * n + i);
        }
        for (int64_t k = 0; k < r; ++k) {
          e.db[static_cast<size_t>(v * r + k)] += kLoraScale * dz * ha[static_cast<size_t>(k)];
          for (int64_t i = 0; i < n; ++i) {
            e.da[static_cast<size_t>(k * n + i)] +=
                kLoraScale * dz * at(b, v * r + k) * at(hidden, t * n + i);
          }
        }
      }
    }
    return e;
  }

  void Check(const Case& which, float skip_below = 0) {
    Make(which);
    const Grads g = Run(*ctx, skip_below);
    const Reference e = Expected();
    const Bounds bound = Bound(skip_below);
    const std::string name = std::to_string(c.tokens) + "x" + std::to_string(c.h) + "x" +
                             std::to_string(c.vocab) + " r " + std::to_string(c.r);
    double loss_bound = 0, weight = 0;
    int64_t labelled = 0;
    for (double x : bound.token_loss) loss_bound += x;
    for (size_t t = 0; t < targets.size(); ++t) {
      if (targets[t] < 0) continue;
      ++labelled;
      weight += weights[t];
    }
    EXPECT_NEAR(g.result.loss_sum, e.loss, loss_bound) << name;
    EXPECT_EQ(g.result.labelled, labelled);
    EXPECT_NEAR(g.result.weight_sum, weight, 1e-12 * weight);
    ExpectWithin(g.token_loss, e.token_loss, bound.token_loss, "token_loss " + name);
    ExpectWithin(g.dhidden, e.dhidden, bound.dhidden, "dhidden " + name);
    ExpectWithin(g.dhead, e.dhead, bound.dhead, "dhead " + name);
    ExpectWithin(g.da, e.da, bound.da, "dlora_a " + name);
    ExpectWithin(g.db, e.db, bound.db, "dlora_b " + name);
  }
};
EW_EVERY_ISA(HeadLossKernel);

TEST_P(HeadLossKernel, EqualsReference) {
  Check({1, 1, 1, 0, 0, 0.3, true});
  Check({3, 5, 2});
  Check({7, 17, 33, 0, 3});
  Check({70, 40, 300});
  Check({61, 300, 517, 0, 8});
  Check({130, 24, 1500, 0, 2, 0.3, true});
}

TEST_P(HeadLossKernel, EqualsReferenceWithSoftcap) { Check({40, 30, 200, 1.5f, 2}); }

TEST_P(HeadLossKernel, EqualsReferenceWithExtremeLogits) {
  Check({20, 30, 200, 0, 0, 8.0});
  Check({20, 30, 200, 0, 0, 1e-6});
}

TEST_P(HeadLossKernel, LeavingOutBlocksKeepsItsBound) {
  Check({60, 64, 2000, 0, 2, 0.1}, 1e-3f);
  Check({60, 64, 2000, 0, 2, 0.6}, 1e-3f);  // peaked: blocks put off are needed after all
  Check({60, 64, 2000, 2.0f, 2, 0.4}, 1e-2f);
}

TEST_P(HeadLossKernel, LeavingOutChangesSomething) {
  Make({60, 64, 2000, 0, 0, 0.1});
  EXPECT_FALSE(SameBits(Run(*ctx, 0).dhidden, Run(*ctx, 1e-3f).dhidden));
}

TEST_P(HeadLossKernel, SameBitsWithAnyNumberOfThreads) {
  for (float skip_below : {0.0f, 1e-3f}) {
    Make({150, 40, 1100, 0, 2, 0.1});
    const Grads one = Run(*MakeContext(GetParam(), 1), skip_below);
    for (int threads : {2, 3}) {
      const Grads g = Run(*MakeContext(GetParam(), threads), skip_below);
      EXPECT_EQ(one.result.loss_sum, g.result.loss_sum);
      EXPECT_TRUE(SameBits(one.dhidden, g.dhidden) && SameBits(one.dhead, g.dhead));
      EXPECT_TRUE(SameBits(one.da, g.da) && SameBits(one.db, g.db));
    }
  }
}

TEST_P(HeadLossKernel, CountsTheRowsItPredicts) {
  Make({30, 20, 100});
  hidden.assign(hidden.size(), 0);
  head.assign(head.size(), 0);
  // Row t is predicted as token t % 3 + 1 by construction; ties go to the first.
  for (int64_t t = 0; t < c.tokens; ++t) {
    hidden[static_cast<size_t>(t * c.h + t % 3)] = 1;
    targets[static_cast<size_t>(t)] = t % 2 == 0 ? static_cast<int32_t>(t % 3 + 1) : 0;
  }
  for (int64_t i = 0; i < 3; ++i) head[static_cast<size_t>((i + 1) * c.h + i)] = 1;
  EXPECT_EQ(Run(*ctx).result.correct, 15);
  head.assign(head.size(), 0);
  EXPECT_EQ(Run(*ctx).result.correct, 15);  // all logits equal: token 0, the odd rows
}

TEST_P(HeadLossKernel, NoLabelsCostNothing) {
  Make({5, 8, 20});
  targets.assign(5, -1);
  const Grads g = Run(*ctx);
  EXPECT_EQ(g.result.labelled, 0);
  EXPECT_EQ(g.result.loss_sum, 0);
  EXPECT_TRUE(SameBits(g.dhidden, std::vector<float>(g.dhidden.size())));
  EXPECT_TRUE(SameBits(g.token_loss, std::vector<float>(5)));
}

TEST_P(HeadLossKernel, HalfPrecisionHead) {
  Make({20, 40, 300});
  std::vector<uint16_t> half(head.size());
  ConvertFromF32(DType::kBF16, head.data(), half.data(), c.vocab * c.h);
  ConvertToF32(DType::kBF16, half.data(), head.data(), c.vocab * c.h);
  HeadLossArgs args;
  args.tokens = c.tokens;
  args.hidden = hidden.data();
  args.targets = targets.data();
  args.grad_scale = 1;
  std::vector<float> d16(hidden.size()), d32(hidden.size());
  args.head = {c.vocab, c.h, DType::kBF16, half.data(), c.h, nullptr};
  args.dhidden = d16.data();
  HeadLoss(*ctx, args);
  args.head = WeightRef::Dense(head.data(), c.vocab, c.h);
  args.dhidden = d32.data();
  HeadLoss(*ctx, args);
  EXPECT_TRUE(SameBits(d16, d32));
}

TEST_P(HeadLossKernel, LogSoftmaxAt) {
  const auto z = Normal(3 * 50, 5);
  const int32_t at[] = {0, 49, 7};
  double actual[3];
  LogSoftmaxAt(*ctx, 3, 50, z.data(), at, actual);
  for (int64_t r = 0; r < 3; ++r) {
    double sum = 0;
    for (int64_t v = 0; v < 50; ++v)
      sum += std::exp(static_cast<double>(z[static_cast<size_t>(r * 50 + v)]));
    EXPECT_NEAR(actual[r], z[static_cast<size_t>(r * 50 + at[r])] - std::log(sum), 1e-12);
  }
}

}  // namespace
}  // namespace edgewise::kernels
