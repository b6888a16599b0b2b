#include "model/whole_head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "testing/model_support.h"

namespace edgewise::model {
namespace {

constexpr int64_t kTokens = 9, kHidden = 12, kVocab = 23, kRank = 3;
constexpr double kGradScale = 0.5, kLoraScale = 0.75;

struct Problem {
  float softcap = 0;
  double weight = 0;  // of the teacher
  std::vector<float> hidden, head, a, b, teacher;
  std::vector<int32_t> targets;

  explicit Problem(float cap, double w) : softcap(cap), weight(w) {
    Rng rng(3, RngStream::kTest);
    const auto normal = [&](int64_t n) {
      std::vector<float> v(static_cast<size_t>(n));
      for (float& x : v) x = static_cast<float>(0.6 * rng.NextNormal());
      return v;
    };
    hidden = normal(kTokens * kHidden), head = normal(kVocab * kHidden);
    a = normal(kRank * kHidden), b = normal(kVocab * kRank), teacher = normal(kTokens * kVocab);
    for (int64_t t = 0; t < kTokens; ++t) {
      targets.push_back(t % 3 == 1 ? -1 : static_cast<int32_t>(rng.NextBelow(kVocab)));
    }
  }

  // The loss as it is defined, in double.
  double Loss() const {
    double loss = 0;
    for (size_t t = 0; t < kTokens; ++t) {
      if (targets[t] < 0) continue;
      std::vector<double> z(kVocab), low(kRank);
      for (size_t r = 0; r < kRank; ++r) {
        for (size_t i = 0; i < kHidden; ++i) {
          low[r] += static_cast<double>(hidden[t * kHidden + i]) * a[r * kHidden + i];
        }
      }
      for (size_t v = 0; v < kVocab; ++v) {
        for (size_t i = 0; i < kHidden; ++i) {
          z[v] += static_cast<double>(hidden[t * kHidden + i]) * head[v * kHidden + i];
        }
        for (size_t r = 0; r < kRank; ++r) z[v] += kLoraScale * low[r] * b[v * kRank + r];
        if (softcap > 0) z[v] = softcap * std::tanh(z[v] / softcap);
      }
      double sum = 0, their_sum = 0;
      for (size_t v = 0; v < kVocab; ++v) {
        sum += std::exp(z[v]);
        their_sum += std::exp(static_cast<double>(teacher[t * kVocab + v]));
      }
      loss += (1 - weight) * (std::log(sum) - z[static_cast<size_t>(targets[t])]);
      for (size_t v = 0; v < kVocab; ++v) {
        const double logq = teacher[t * kVocab + v] - std::log(their_sum);
        loss += weight * std::exp(logq) * (logq - z[v] + std::log(sum));
      }
    }
    return loss;
  }
};

struct Grads {
  std::vector<float> hidden = std::vector<float>(kTokens * kHidden, 7),
                     head = std::vector<float>(kVocab * kHidden),
                     a = std::vector<float>(kRank * kHidden),
                     b = std::vector<float>(kVocab * kRank), token_loss;
  kernels::HeadLossResult result;
};

kernels::HeadLossArgs Args(const Problem& p, Grads& g) {
  g.token_loss.resize(kTokens);
  kernels::HeadLossArgs args;
  args.tokens = kTokens;
  args.hidden = p.hidden.data();
  args.head = kernels::WeightRef::Dense(p.head.data(), kVocab, kHidden);
  args.targets = p.targets.data();
  args.softcap = p.softcap;
  args.grad_scale = static_cast<float>(kGradScale);
  args.dhidden = g.hidden.data(), args.dhead = g.head.data();
  args.token_loss = g.token_loss.data();
  args.lora_r = kRank, args.lora_scale = static_cast<float>(kLoraScale);
  args.lora_a = p.a.data(), args.lora_b = p.b.data();
  args.dlora_a = g.a.data(), args.dlora_b = g.b.data();
  return args;
}

Grads Gradients(const Problem& p, int64_t chunk) {
  const auto ctx = testing::MakeContext();
  Grads g;
  Teacher teacher;
  teacher.weight = p.weight;
  teacher.logits = [&](std::span<const int64_t> tokens, float* logits) {
    for (int64_t t : tokens) {
      logits = std::copy_n(p.teacher.begin() + t * kVocab, kVocab, logits);
    }
    return Status::Ok();
  };
  const auto result = WholeHeadLoss(*ctx, Args(p, g), {}, chunk, p.weight > 0 ? &teacher : nullptr);
  EXPECT_TRUE(result.ok());
  g.result = *result;
  return g;
}

TEST(WholeHead, IsTheFusedHeadWithoutATeacher) {
  for (float softcap : {0.0f, 3.0f}) {
    const Problem p(softcap, 0);
    const auto ctx = testing::MakeContext();
    Grads want;
    want.result = kernels::HeadLoss(*ctx, Args(p, want));
    for (int64_t chunk : {0, 1, 4}) {
      const Grads got = Gradients(p, chunk);
      EXPECT_EQ(got.result.labelled, want.result.labelled);
      EXPECT_EQ(got.result.correct, want.result.correct);
      // Sums of up to 12 + 23 fp32 terms of size one, added in other orders.
      EXPECT_NEAR(got.result.loss_sum, want.result.loss_sum, 1e-5);
      EXPECT_LE(testing::MaxDifference(got.hidden.data(), want.hidden), 2e-6);
      EXPECT_LE(testing::MaxDifference(got.head.data(), want.head), 2e-6);
      EXPECT_LE(testing::MaxDifference(got.a.data(), want.a), 2e-6);
      EXPECT_LE(testing::MaxDifference(got.b.data(), want.b), 2e-6);
      EXPECT_LE(testing::MaxDifference(got.token_loss.data(), want.token_loss), 2e-6);
    }
  }
}

TEST(WholeHead, GradientsAreThoseOfTheLoss) {
  for (float softcap : {0.0f, 3.0f}) {
    for (double weight : {0.3, 1.0}) {
      SCOPED_TRACE(weight);
      Problem p(softcap, weight);
      const Grads g = Gradients(p, 4);
      EXPECT_NEAR(g.result.loss_sum, p.Loss(), 1e-5);
      const auto check = [&](std::vector<float>& values, const std::vector<float>& grads) {
        for (size_t i = 0; i < values.size(); i += 5) {
          const float was = values[i], step = 0x1p-8f;
          values[i] = was + step;
          const double up = p.Loss(), right = values[i];
          values[i] = was - step;
          const double down = p.Loss(), left = values[i];
          values[i] = was;
          // The difference quotient of a smooth function is off by step^2 / 6 of its third
          // derivative, which is of the size of the loss: 1e-5.
          EXPECT_NEAR(grads[i], kGradScale * (up - down) / (right - left), 5e-5) << i;
        }
      };
      check(p.hidden, g.hidden);
      check(p.head, g.head);
      check(p.a, g.a);
      check(p.b, g.b);
    }
  }
}

TEST(WholeHead, ATeacherThatSaysTheSameLeavesNothingToLearn) {
  Problem p(0, 1);
  // The model's own logits, by way of a head without adapter.
  std::fill(p.b.begin(), p.b.end(), 0.0f);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t v = 0; v < kVocab; ++v) {
      double z = 0;
      for (size_t i = 0; i < kHidden; ++i) {
        z += static_cast<double>(p.hidden[t * kHidden + i]) * p.head[v * kHidden + i];
      }
      p.teacher[t * kVocab + v] = static_cast<float>(z);
    }
  }
  const Grads g = Gradients(p, 0);
  EXPECT_NEAR(g.result.loss_sum, 0, 1e-6);
  EXPECT_LE(testing::LargestOf(g.hidden), 1e-6);
  EXPECT_LE(testing::LargestOf(g.head), 1e-6);
}

TEST(WholeHead, AFailingTeacherIsReported) {
  const Problem p(0, 0.5);
  const auto ctx = testing::MakeContext();
  Grads g;
  const Teacher teacher{[](std::span<const int64_t>, float*) { return IoError("gone"); }, 0.5};
  EXPECT_FALSE(WholeHeadLoss(*ctx, Args(p, g), {}, 4, &teacher).ok());
}

TEST(WholeHead, BytesAreThoseOfItsRows) {
  const Problem p(0, 0.5);
  Grads g;
  kernels::HeadLossArgs args = Args(p, g);
  const Teacher teacher;
  const auto floats = [&](int64_t rows, int64_t chunk, const Teacher* t) {
    return WholeHeadBytes(args, rows, chunk, t) / static_cast<int64_t>(sizeof(float));
  };
  // Inputs and their gradients, those of the LoRA, logits.
  const int64_t row = 2 * (kHidden + kRank) + kVocab;
  EXPECT_EQ(floats(kTokens, 0, nullptr), kTokens * row);
  EXPECT_EQ(floats(kTokens, 0, &teacher), kTokens * (row + kVocab));
  EXPECT_EQ(floats(kTokens, 4, &teacher), 4 * (row + kVocab));
  EXPECT_EQ(floats(3, 4, &teacher), 3 * (row + kVocab));
  // Both factors' gradients are made even where they go nowhere.
  args.dlora_a = nullptr;
  EXPECT_EQ(floats(3, 4, nullptr), 3 * row + kRank * (kHidden + kVocab));
  args.grad_scale = 0;
  EXPECT_EQ(floats(3, 4, nullptr), 3 * (kHidden + kRank + kVocab));
}

}  // namespace
}  // namespace edgewise::model
