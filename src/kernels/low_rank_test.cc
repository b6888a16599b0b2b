#include "kernels/low_rank.h"

#include "kernels/kernel_test_util.h"
#include "kernels/linear.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kOut = 70, kIn = 130, kPad = 5;

class LowRankTerm : public EveryIsa {
 protected:
  const std::unique_ptr<ExecContext> three = MakeContext(GetParam(), 3);

  // Y, or dX, of products that take the term along, in both layouts, and of ones that are followed
  // by it.
  void Check(const WeightRef& w, const float* bias, int64_t m, int64_t r, Accumulate acc) {
    const auto x = Normal(m * kIn), dy = Normal(m * kOut), in = Normal(m * r), b = Normal(kOut * r),
               a = Normal(r * kIn);
    const LowRank up = {r, 0.5f, in.data(), b.data()};
    const LowRank down = {r, -0.25f, in.data(), nullptr, a.data(), kIn};
    const auto y0 = Normal(m * (kOut + kPad)), dx0 = Normal(m * (kIn + kPad));
    std::vector<float> want = y0;
    LinearForward(*ctx, m, x.data(), kIn, w, bias, want.data(), kOut + kPad, acc);
    LowRankAdd(*ctx, m, kOut, up, want.data(), kOut + kPad);
    LinearBackwardOptions exact, integer;
    integer.mode = BackwardMode::kInteger;
    std::vector<float> wants[2] = {dx0, dx0};
    for (int i = 0; i < 2; ++i) {
      LinearBackwardInput(*ctx, m, dy.data(), kOut, w, wants[i].data(), kIn + kPad, acc,
                          i == 0 ? exact : integer);
      LowRankAdd(*ctx, m, kIn, down, wants[i].data(), kIn + kPad);
    }
    for (ExecContext* other : {ctx.get(), three.get()}) {
      std::vector<float> got = y0;
      LinearForward(*other, m, x.data(), kIn, w, bias, got.data(), kOut + kPad, acc, up);
      EXPECT_TRUE(SameBits(got, want)) << "forward, " << other->threads() << " threads";
      for (int i = 0; i < 2; ++i) {
        got = dx0;
        LinearBackwardInput(*other, m, dy.data(), kOut, w, got.data(), kIn + kPad, acc,
                            i == 0 ? exact : integer, down);
        EXPECT_TRUE(SameBits(got, wants[i]))
            << "backward " << i << ", " << other->threads() << " threads";
      }
    }
  }
};

TEST_P(LowRankTerm, AddsWhatAProductOfItsOwnWouldAdd) {
  const auto bias = Normal(kOut);
  for (const PackedFormat& f : TestFormats(kOut, kIn)) {
    SCOPED_TRACE(Describe(f));
    Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
    ASSERT_TRUE(w.ok()) << w.status().message();
    Check(w->Ref(), nullptr, 23, 8, Accumulate::kAdd);
    Check(w->Ref(), bias.data(), 17, 3, Accumulate::kOverwrite);
  }
  const auto plain = Normal(kOut * kIn);
  const WeightRef dense = WeightRef::Dense(plain.data(), kOut, kIn);
  for (const int64_t m : {1, 16, 17, 60}) {
    Check(dense, nullptr, m, 8, Accumulate::kAdd);
    Check(dense, bias.data(), m, 40, Accumulate::kOverwrite);
  }
}

// Few rows, few columns, more than one block of k: what is not taken along is added afterwards.
TEST_P(LowRankTerm, IsAddedAfterwardsWhereItCannotBeTakenAlong) {
  PackedFormat f;
  f.rows = kOut;
  f.cols = kIn;
  Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
  ASSERT_TRUE(w.ok()) << w.status().message();
  for (const int64_t m : {1, 4, 16}) Check(w->Ref(), nullptr, m, 8, Accumulate::kAdd);
  Check(w->Ref(), nullptr, 20, kMaxLowRank + 1, Accumulate::kOverwrite);
}

// Matrices that share their input, one with a term and one without.
TEST_P(LowRankTerm, BelongsToItsOwnTarget) {
  constexpr int64_t kM = 40, kR = 4;
  PackedFormat f;
  f.rows = kOut;
  f.cols = kIn;
  f.group = 64;
  f.act_group = 128;
  Result<PackedMatrix> w = PackFromQuantized(f, MakeRandomPacked(f, rng).View(f));
  ASSERT_TRUE(w.ok()) << w.status().message();
  const auto x = Normal(kM * kIn), in = Normal(kM * kR), b = Normal(kOut * kR);
  const LowRank term = {kR, 2.0f, in.data(), b.data()};
  std::vector<float> plain(kM * kOut), adapted(kM * kOut), got[2] = {plain, plain};
  LinearForward(*ctx, kM, x.data(), kIn, w->Ref(), nullptr, plain.data(), kOut);
  LinearForward(*ctx, kM, x.data(), kIn, w->Ref(), nullptr, adapted.data(), kOut,
                Accumulate::kOverwrite, term);
  EXPECT_FALSE(SameBits(plain, adapted));
  LinearTarget targets[2];
  for (int i = 0; i < 2; ++i) targets[i] = {w->Ref(), nullptr, got[i].data(), kOut};
  targets[1].low_rank = term;
  LinearForwardMany(*ctx, kM, x.data(), kIn, targets);
  EXPECT_TRUE(SameBits(got[0], plain));
  EXPECT_TRUE(SameBits(got[1], adapted));
}

EW_EVERY_ISA(LowRankTerm);

}  // namespace
}  // namespace edgewise::kernels
