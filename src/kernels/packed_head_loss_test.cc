// The fused head and loss on a packed head.
#include "kernels/kernel_test_util.h"
#include "kernels/linear.h"
#include "kernels/loss.h"
#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

class PackedHeadLoss : public EveryIsa {
 protected:
  static constexpr int64_t kTokens = 70, kVocab = 519, kWidth = 208, kRank = 3;
  std::vector<float> hidden, a, b;
  std::vector<int32_t> targets;

  void SetUp() override {
    EveryIsa::SetUp();
    hidden = Normal(kTokens * kWidth, 1);
    a = Normal(kRank * kWidth, 0.1);
    b = Normal(kVocab * kRank, 0.1);
    for (int64_t t = 0; t < kTokens; ++t) {
      targets.push_back(t % 5 == 0 ? -1 : static_cast<int32_t>(rng.NextBelow(kVocab)));
    }
  }

  PackedMatrix Head(int bits, int group, int act_group, bool has_min = false) {
    PackedFormat f;
    f.rows = kVocab;
    f.cols = kWidth;
    f.bits = bits;
    f.group = group;
    f.act_group = act_group;
    f.has_min = has_min;
    const std::vector<float> w = Normal(kVocab * kWidth, 0.1);
    return Pack(f, w.data(), kWidth).value();
  }

  struct Outcome {
    std::vector<float> dhidden, token_loss, da, db;
    HeadLossResult result;
  };
  Outcome Run(ExecContext& context, const WeightRef& head, BackwardMode mode, float skip_below = 0,
              HeadBlockSource* source = nullptr) const {
    Outcome o = {std::vector<float>(hidden.size()),
                 std::vector<float>(kTokens),
                 std::vector<float>(a.size()),
                 std::vector<float>(b.size()),
                 {}};
    HeadLossArgs args;
    args.tokens = kTokens;
    args.hidden = hidden.data();
    args.head = head;
    args.targets = targets.data();
    args.grad_scale = 0.25f;
    args.dhidden = o.dhidden.data();
    args.token_loss = o.token_loss.data();
    args.lora_r = kRank;
    args.lora_scale = 0.5f;
    args.lora_a = a.data();
    args.lora_b = b.data();
    args.dlora_a = o.da.data();
    args.dlora_b = o.db.data();
    args.backward = mode;
    args.skip_below = skip_below;
    args.source = source;
    o.result = HeadLoss(context, args);
    return o;
  }

  // Softmax and its gradient in double, from the logits that decoding would see.
  struct Expected {
    std::vector<double> loss, p;  // [tokens], [tokens, vocab] probability - [target]
  };
  Expected FromLogits(const PackedMatrix& head) {
    std::vector<float> z(kTokens * kVocab), xa(kTokens * kRank);
    LinearForward(*ctx, kTokens, hidden.data(), kWidth, head.Ref(), nullptr, z.data(), kVocab);
    LoraForward(*ctx, kTokens, kWidth, kVocab, kRank, 0.5f, hidden.data(), kWidth, a.data(),
                b.data(), xa.data(), z.data(), kVocab);
    Expected e = {std::vector<double>(kTokens), std::vector<double>(z.size())};
    for (int64_t t = 0; t < kTokens; ++t) {
      const int32_t target = targets[static_cast<size_t>(t)];
      if (target < 0) continue;
      double sum = 0;
      for (int64_t v = 0; v < kVocab; ++v) {
        sum += e.p[static_cast<size_t>(t * kVocab + v)] =
            std::exp(static_cast<double>(z[static_cast<size_t>(t * kVocab + v)]));
      }
      for (int64_t v = 0; v < kVocab; ++v) e.p[static_cast<size_t>(t * kVocab + v)] /= sum;
      e.loss[static_cast<size_t>(t)] =
          std::log(sum) - static_cast<double>(z[static_cast<size_t>(t * kVocab + target)]);
      e.p[static_cast<size_t>(t * kVocab + target)] -= 1;
    }
    return e;
  }

  // |dhidden - 0.25 (p W)| per element. Exact: roundings of vocab + tiles additions and of the
  // probabilities (bound of loss_test.cc: under 600 units for these sizes, taken as 2000). Integer:
  // also 1/254 (with headroom 1/250) of the largest p S of each 128 rows times the sum of their
  // codes' magnitudes, and with regrouped scales half a step of the row's grid for every weight.
  void Check(const PackedMatrix& head, BackwardMode mode) {
    const Expected e = FromLogits(head);
    const Outcome o = Run(*ctx, head.Ref(), mode);
    std::vector<float> w(kVocab * kWidth);
    head.UnpackRows(0, kVocab, w.data(), kWidth);
    std::vector<double> largest(kVocab);
    for (int64_t v = 0; v < kVocab; ++v) {
      for (int64_t i = 0; i < kWidth; ++i) {
        largest[static_cast<size_t>(v)] =
            std::max(largest[static_cast<size_t>(v)],
                     std::fabs(static_cast<double>(w[static_cast<size_t>(v * kWidth + i)])));
      }
    }
    std::vector<double> want(hidden.size()), bound(hidden.size());
    for (int64_t t = 0; t < kTokens; ++t) {
      const int32_t target = targets[static_cast<size_t>(t)];
      EXPECT_NEAR(o.token_loss[static_cast<size_t>(t)], e.loss[static_cast<size_t>(t)],
                  2000 * kUnit * (1 + e.loss[static_cast<size_t>(t)]));
      if (target < 0) continue;
      for (int64_t block = 0; block < kVocab; block += 128) {
        const int64_t end = std::min<int64_t>(block + 128, kVocab);
        double top = 0;
        for (int64_t v = block; v < end; ++v) {
          const double p = e.p[static_cast<size_t>(t * kVocab + v)] + (v == target ? 1 : 0);
          // 2: a grid may be wider than the row's largest weight (a symmetric code more, a min).
          top = std::max(top, 2 * p * largest[static_cast<size_t>(v)] / 127);
        }
        for (int64_t v = block; v < end; ++v) {
          const double signed_p = e.p[static_cast<size_t>(t * kVocab + v)];
          const double p = signed_p + (v == target ? 1 : 0);
          for (int64_t i = 0; i < kWidth; ++i) {
            const auto at = static_cast<size_t>(t * kWidth + i);
            const double x = w[static_cast<size_t>(v * kWidth + i)];
            want[at] += 0.25 * signed_p * x;
            bound[at] += 0.25 * (p + (v == target ? 1 : 0)) * std::fabs(x) * 2000 * kUnit;
            if (mode == BackwardMode::kExact) continue;
            const double step = 2 * largest[static_cast<size_t>(v)] / 127;
            bound[at] += 0.25 * (top / 250 * 128 + p * step);
          }
        }
      }
      for (int64_t i = 0; i < kWidth; ++i) {
        // The low-rank part of the head: dhidden += scale (p B) A, in fp32.
        const auto at = static_cast<size_t>(t * kWidth + i);
        for (int64_t v = 0; v < kVocab; ++v) {
          double ba = 0;
          for (int64_t k = 0; k < kRank; ++k) {
            ba += static_cast<double>(b[static_cast<size_t>(v * kRank + k)]) *
                  a[static_cast<size_t>(k * kWidth + i)];
          }
          const double p = e.p[static_cast<size_t>(t * kVocab + v)];
          want[at] += 0.25 * 0.5 * p * ba;
          bound[at] += 0.25 * (std::fabs(p) + 1) * 0.03 * 2000 * kUnit;
        }
      }
    }
    ExpectWithin(o.dhidden, want, bound, "dhidden");
  }
};
EW_EVERY_ISA(PackedHeadLoss);

TEST_P(PackedHeadLoss, LossIsThatOfTheLogitsOfDecoding) {
  for (const BackwardMode mode : {BackwardMode::kExact, BackwardMode::kInteger}) {
    Check(Head(8, 0, 128), mode);
    Check(Head(8, 0, 0), mode);
    Check(Head(4, 64, 128), mode);
    Check(Head(4, 32, 32), mode);
    Check(Head(4, 32, 128, true), mode);
  }
}

TEST_P(PackedHeadLoss, SameBitsWithAnyNumberOfThreads) {
  const PackedMatrix head = Head(8, 0, 128);
  for (const BackwardMode mode : {BackwardMode::kExact, BackwardMode::kInteger}) {
    for (const float skip : {0.0f, 1e-3f}) {
      const Outcome one = Run(*MakeContext(GetParam(), 1), head.Ref(), mode, skip);
      const Outcome three = Run(*MakeContext(GetParam(), 3), head.Ref(), mode, skip);
      EXPECT_EQ(one.result.loss_sum, three.result.loss_sum);
      EXPECT_TRUE(SameBits(one.dhidden, three.dhidden));
      EXPECT_TRUE(SameBits(one.da, three.da) && SameBits(one.db, three.db));
    }
  }
}

// A head of which one block at a time is there: the rest is garbage.
class OneBlock : public HeadBlockSource {
 public:
  static constexpr int64_t kBlock = 256;
  explicit OneBlock(const WeightRef& head) : rows_(head.rows) {
    if (head.packed == nullptr) {
      from_.assign(static_cast<const std::byte*>(head.data),
                   static_cast<const std::byte*>(head.data) + head.rows * head.ld * 4);
      parts_ = {{0, head.ld * 4}};
    } else {
      from_.assign(head.packed->bytes().begin(), head.packed->bytes().end());
      const PackedLayout& l = head.packed->layout();
      // Of a row: values, scales, mins.
      parts_ = {{l.values, l.units * 4 * head.packed->format().bits}, {l.scales, l.groups * 2}};
      if (head.packed->format().has_min) parts_.push_back({l.mins, l.groups * 2});
    }
    at_ = from_;
    for (const auto& [offset, row] : parts_) Spoil(offset, RoundUp(rows_, 16) * row);
    ref_ = head;
    if (head.packed == nullptr) {
      ref_.data = at_.data();
    } else {
      packed_ = PackedMatrix::FromBytes(at_, nullptr).value();
      ref_ = packed_.Ref();
    }
  }
  const WeightRef& ref() const { return ref_; }
  int64_t BlockEnd(int64_t first) const override { return std::min(first + kBlock, rows_); }
  bool Hold(int64_t first) override {
    for (const auto& [offset, row] : parts_) {
      if (held_ >= 0) Spoil(offset + held_ * row, Padded(held_) * row);
      std::copy_n(from_.data() + offset + first * row, Padded(first) * row,
                  at_.data() + offset + first * row);
    }
    held_ = first;
    order.push_back(first);
    return static_cast<int64_t>(order.size()) != fail_at;
  }
  std::vector<int64_t> order;
  int64_t fail_at = -1;

 private:
  int64_t Padded(int64_t first) const {
    const int64_t rows = BlockEnd(first) - first;
    return packed_.rows() > 0 ? RoundUp(rows, 16) : rows;
  }
  void Spoil(int64_t offset, int64_t bytes) {
    std::fill_n(at_.data() + offset, std::min<int64_t>(bytes, std::ssize(at_) - offset),
                std::byte{0x7d});
  }
  int64_t rows_, held_ = -1;
  std::vector<std::byte> from_, at_;
  std::vector<std::pair<int64_t, int64_t>> parts_;
  PackedMatrix packed_;
  WeightRef ref_;
};

TEST_P(PackedHeadLoss, AHeadInBlocksGivesTheBitsOfAWholeOne) {
  const std::vector<float> dense = Normal(kVocab * kWidth, 0.1);
  const PackedMatrix plain = Head(8, 0, 128), grouped = Head(4, 32, 128, true);
  for (const WeightRef& head :
       {WeightRef::Dense(dense.data(), kVocab, kWidth), plain.Ref(), grouped.Ref()}) {
    for (const BackwardMode mode : {BackwardMode::kExact, BackwardMode::kInteger}) {
      for (const float skip : {0.0f, 1e-3f}) {
        const Outcome whole = Run(*ctx, head, mode, skip);
        OneBlock blocks(head);
        const Outcome one = Run(*ctx, blocks.ref(), mode, skip, &blocks);
        EXPECT_EQ(whole.result.loss_sum, one.result.loss_sum);
        EXPECT_EQ(whole.result.correct, one.result.correct);
        EXPECT_EQ(whole.result.dhead_blocks, one.result.dhead_blocks);
        EXPECT_TRUE(SameBits(whole.dhidden, one.dhidden));
        EXPECT_TRUE(SameBits(whole.da, one.da) && SameBits(whole.db, one.db));
        // Up and down again, and once more what was put off; as it was announced.
        HeadLossArgs args;
        args.tokens = kTokens;
        args.targets = targets.data();
        args.head = blocks.ref();
        args.source = &blocks;
        args.grad_scale = 0.25f;
        args.lora_r = kRank;
        std::vector<float> gradient(one.dhidden);
        args.dhidden = gradient.data();
        args.dlora_b = gradient.data();
        args.skip_below = skip;
        std::vector<int64_t> order = {0, 256, 512, 512, 256, 0};
        if (skip > 0) order.push_back(0);
        EXPECT_EQ(HeadLossOrder(*ctx, args), order);
        EXPECT_EQ(blocks.order, order);
      }
    }
  }
}

TEST_P(PackedHeadLoss, ABlockThatCannotBeHadEndsTheLoss) {
  const PackedMatrix head = Head(8, 0, 128);
  for (int64_t at : {1, 3, 5}) {
    OneBlock blocks(head.Ref());
    blocks.fail_at = at;
    Run(*ctx, blocks.ref(), BackwardMode::kInteger, 0, &blocks);
    EXPECT_EQ(std::ssize(blocks.order), at);
  }
}

// What is left out changes a row's gradient by less than its left-out probability (at most
// vocab * limit) times the longest row of the head.
TEST_P(PackedHeadLoss, LeavingOutBlocksKeepsItsBound) {
  const PackedMatrix head = Head(8, 0, 128);
  std::vector<float> w(kVocab * kWidth);
  head.UnpackRows(0, kVocab, w.data(), kWidth);
  double longest = 0;
  for (int64_t v = 0; v < kVocab; ++v) {
    double norm = 0;
    for (int64_t i = 0; i < kWidth; ++i) {
      norm += std::pow(static_cast<double>(w[static_cast<size_t>(v * kWidth + i)]), 2);
    }
    longest = std::max(longest, std::sqrt(norm));
  }
  constexpr float kLimit = 1e-2f;
  const Outcome all = Run(*ctx, head.Ref(), BackwardMode::kInteger);
  const Outcome some = Run(*ctx, head.Ref(), BackwardMode::kInteger, kLimit);
  EXPECT_EQ(all.result.loss_sum, some.result.loss_sum);
  for (int64_t t = 0; t < kTokens; ++t) {
    double difference = 0;
    for (int64_t i = 0; i < kWidth; ++i) {
      const auto at = static_cast<size_t>(t * kWidth + i);
      difference += std::pow(static_cast<double>(all.dhidden[at]) - some.dhidden[at], 2);
    }
    // (0.06: the low-rank part of a row, at most 3 products of normal numbers of size 0.1.)
    EXPECT_LE(std::sqrt(difference), 0.25 * kVocab * kLimit * (longest + 0.06 * 15));
  }
}

// Forms that the integer products do not know: logits in fp32 from unpacked rows.
TEST_P(PackedHeadLoss, TakesSparseHeads) {
  PackedFormat f;
  f.rows = kVocab;
  f.cols = kWidth;
  f.structure = Structure::kUnstructured;
  std::vector<float> w = Normal(kVocab * kWidth, 0.1);
  for (size_t i = 0; i < w.size(); i += 3) w[i] = 0;
  const PackedMatrix head = Pack(f, w.data(), kWidth).value();
  head.UnpackRows(0, kVocab, w.data(), kWidth);
  const Outcome packed = Run(*ctx, head.Ref(), BackwardMode::kInteger);
  const Outcome dense = Run(*ctx, WeightRef::Dense(w.data(), kVocab, kWidth), BackwardMode::kExact);
  EXPECT_EQ(packed.result.loss_sum, dense.result.loss_sum);
  EXPECT_TRUE(SameBits(packed.dhidden, dense.dhidden));
}

}  // namespace
}  // namespace edgewise::kernels
