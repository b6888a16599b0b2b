// Decoding with exits against scoring whole texts, and the fit of the vote.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/rng.h"
#include "infer/early_stop.h"
#include "infer/exit_scorer.h"
#include "infer/token_model.h"
#include "infer/vote_policy.h"

namespace edgewise::infer {
namespace {

constexpr int kExits = 3;
constexpr int64_t kVocab = 61;

model::ModelConfig TinyConfig() {
  model::ModelConfig c;
  c.architecture = "LlamaForCausalLM";
  c.model_type = "llama";
  c.hidden = 32;
  c.ffn = 48;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 8;
  c.vocab = kVocab;
  c.max_positions = 64;
  c.norm_eps = 1e-5;
  c.attn_scale = static_cast<float>(1 / std::sqrt(8.0));
  c.layers.resize(6);
  c.ropes.resize(1);
  return c;
}

class VotingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ctx_ = std::move(*ExecContext::Create({.threads = 2}));
    model_ = std::move(*model::Model::Random(TinyConfig(), 1));
    exits_.emplace(std::move(*model::ExitSet::Random(model_->config(), kExits, 4, 7)));
    Rng rng(5, RngStream::kTest);
    for (int i = 0; i < 40; ++i) tokens_.push_back(static_cast<int32_t>(rng.NextBelow(kVocab)));
  }

  TokenBatch Batch(size_t from, size_t count) const {
    TokenBatch b;
    b.ids.assign(tokens_.begin() + static_cast<int64_t>(from),
                 tokens_.begin() + static_cast<int64_t>(from + count));
    b.positions.resize(count);
    std::iota(b.positions.begin(), b.positions.end(), 0);
    b.first_key.assign(count, 0);
    for (size_t t = 0; t < count; ++t) {
      b.targets.push_back(t + 1 < count ? b.ids[t + 1] : b.ids[0]);
    }
    return b;
  }
  // Logits [tokens][exits * vocab] of the whole text at once.
  std::vector<std::vector<float>> Reference() {
    ExitScorer scorer(*ctx_, *model_, *exits_, 64);
    std::vector<std::vector<float>> all;
    EXPECT_TRUE(scorer
                    .Score(Batch(0, tokens_.size()),
                           [&](int64_t, std::span<const float> logits) {
                             all.emplace_back(logits.begin(), logits.end());
                           })
                    .ok());
    return all;
  }
  std::unique_ptr<model::ForkedDecoder> Decoder(int64_t chunk) {
    return std::move(*model::ForkedDecoder::Create(*ctx_, *model_, *exits_,
                                                   {.max_context = 64, .prefill_chunk = chunk}));
  }
  // fp32 sums in another order through six layers: a few times 2^-24 of logits of size one.
  static void ExpectNear(std::span<const float> got, std::span<const float> want) {
    ASSERT_LE(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 2e-5) << i;
  }

  std::unique_ptr<ExecContext> ctx_;
  std::unique_ptr<model::Model> model_;
  std::optional<model::ExitSet> exits_;
  std::vector<int32_t> tokens_;
};

TEST_F(VotingTest, DecodingAgreesWithScoringTheWholeText) {
  const auto want = Reference();
  ASSERT_EQ(want.size(), tokens_.size());
  // The exits really differ.
  EXPECT_GT(std::fabs(want[3][0] - want[3][kVocab]), 1e-3f);
  for (int64_t chunk : {1, 4, 16}) {
    auto decoder = Decoder(chunk);
    const std::span<const int32_t> all(tokens_);
    auto logits = decoder->Prefill(all.first(10));
    ASSERT_TRUE(logits.ok()) << logits.status().message();
    ExpectNear(*logits, want[9]);
    for (size_t t = 10; t < tokens_.size(); ++t) {
      logits = decoder->Step(tokens_[t]);
      ASSERT_TRUE(logits.ok());
      ASSERT_EQ(logits->size(), static_cast<size_t>(kExits * kVocab));
      ExpectNear(*logits, want[t]);
    }
    decoder->Truncate(20);
    EXPECT_EQ(decoder->length(), 20);
    logits = decoder->Prefill(all.subspan(20, 7));
    ASSERT_TRUE(logits.ok());
    ExpectNear(*logits, want[26]);
  }
}

// What a run was tuned with is what it answers with: decoding rounds as scoring does.
TEST_F(VotingTest, DecodingRoundsActivationsAsScoringDoes) {
  const auto exact = Reference();
  exits_->set_activation_bits(4);
  const auto want = Reference();
  auto decoder = Decoder(4);
  double off = 0, rounding = 0;
  auto logits = decoder->Prefill(std::span(tokens_).first(10));
  for (size_t t = 9; t + 1 < tokens_.size(); ++t) {
    ASSERT_TRUE(logits.ok()) << logits.status().message();
    for (size_t i = 0; i < logits->size(); ++i) {
      off += std::fabs((*logits)[i] - want[t][i]);
      rounding += std::fabs(exact[t][i] - want[t][i]);
    }
    logits = decoder->Step(tokens_[t + 1]);
  }
  // Sums in another order may tip a value over to the next step, but hardly ever.
  EXPECT_GT(rounding, 0.01 * static_cast<double>(tokens_.size()));
  EXPECT_LT(off, 0.02 * rounding);
}

TEST_F(VotingTest, TokensThatStoppedEarlyAreCompletedBeforeTheyAreNeeded) {
  const auto want = Reference();
  for (int64_t chunk : {2, 16}) {
    auto decoder = Decoder(chunk);
    ASSERT_TRUE(decoder->Prefill(std::span(tokens_).first(5)).ok());
    for (size_t t = 5; t < tokens_.size(); ++t) {
      // Stop at exit 0, at exit 1, or not at all, in turn.
      const int last = static_cast<int>(t % 4 == 3 ? 2 : t % 2);
      const auto logits =
          decoder->Step(tokens_[t], [&](int exit, std::span<const float>) { return exit == last; });
      ASSERT_TRUE(logits.ok()) << logits.status().message();
      ASSERT_EQ(logits->size(), static_cast<size_t>((last + 1) * kVocab));
      ExpectNear(*logits, want[t]);
      if (t == 20) {
        decoder->Truncate(18);
        ASSERT_TRUE(decoder->Prefill(std::span(tokens_).subspan(18, 3)).ok());
      }
    }
  }
}

TEST_F(VotingTest, StoppingEarlyRunsFewerLayers) {
  auto all = Decoder(64), early = Decoder(64);
  for (int32_t id : tokens_) {
    ASSERT_TRUE(all->Step(id).ok());
    ASSERT_TRUE(early->Step(id, [](int, std::span<const float>) { return true; }).ok());
  }
  EXPECT_LT(early->layer_rows(), all->layer_rows() / 2);
}

TEST_F(VotingTest, TheChosenRuleIsNoWorseThanTheBestExit) {
  std::vector<TokenBatch> batches;
  for (size_t from = 0; from < 40; from += 10) batches.push_back(Batch(from, 10));
  ExitScorer scorer(*ctx_, *model_, *exits_, 64);
  const auto fitted = CalibrateVote(scorer, batches, kExits, kVocab, nullptr);
  ASSERT_TRUE(fitted.ok()) << fitted.status().message();
  EXPECT_EQ(fitted->fit_tokens, 20);
  EXPECT_EQ(fitted->choose_tokens, 20);
  EXPECT_GE(fitted->gain.mean, 0);
  double best = 1e9, chosen = 0;
  for (const RuleScore& s : fitted->scores) {
    if (s.rule.starts_with("single")) best = std::min(best, s.nll);
    if (s.rule == vote::RuleName(fitted->policy.config)) chosen = s.nll;
  }
  EXPECT_LE(chosen, best);

  const auto again = ParseVotePolicy(VotePolicyJson(fitted->policy), kExits);
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(vote::RuleName(again->config), vote::RuleName(fitted->policy.config));
  EXPECT_EQ(again->config.temperatures, fitted->policy.config.temperatures);
  EXPECT_FALSE(ParseVotePolicy(VotePolicyJson(fitted->policy), kExits + 1).ok());
  EXPECT_FALSE(ParseVotePolicy("{}", kExits).ok());
}

// The vote of the decoder is that of the rules on the same logits.
TEST_F(VotingTest, VotingModelGivesTheCombinedDistribution) {
  const auto want = Reference();
  VotePolicy policy;
  policy.config.rule = vote::Rule::kWeighted;
  policy.config.temperatures = {0.8, 1.0, 1.3};
  policy.config.weights = {0.2, 0.3, 0.5};
  Voter voter(*ctx_, policy, kExits, kVocab);
  VotingTokenModel model(Decoder(8), voter);
  const auto out = model.Prefill(std::span(tokens_).first(12));
  ASSERT_TRUE(out.ok());
  std::vector<double> scratch(kExits * kVocab), vote(kVocab), got(kVocab);
  vote::Vote(policy.config, want[11], kExits, scratch, vote);
  vote::Softmax(*out, 1, got);
  for (size_t v = 0; v < vote.size(); ++v) EXPECT_NEAR(got[v], vote[v], 1e-5);
}

// Between the lowest exit alone and the vote of all.
TEST_F(VotingTest, EarlyStopIsScoredAsItDecodes) {
  const auto logits = Reference();
  VotePolicy policy;
  policy.config.rule = vote::Rule::kMean;
  policy.config.temperatures = {0.8, 1.0, 1.3};
  const std::vector<double> bounds = {0, 0.02, 2};
  EarlyStopScores scores(*ctx_, policy, kExits, kVocab, bounds);
  for (size_t t = 0; t + 1 < tokens_.size(); ++t) scores.Add(logits[t], tokens_[t + 1]);
  const std::vector<EarlyStopScore> got = scores.Finish();
  ASSERT_EQ(got.size(), bounds.size());
  const auto n = static_cast<int64_t>(tokens_.size()) - 1;
  EXPECT_EQ(got[0].decided, (std::vector<int64_t>{n, 0, 0}));
  EXPECT_EQ(got[2].decided, (std::vector<int64_t>{0, 0, n}));
  for (size_t b = 0; b < bounds.size(); ++b) {
    // The decoder, token by token, with the same bound.
    policy.stop_above = bounds[b] > 0 ? std::min(bounds[b], 1.0) : 1e-9;
    Voter voter(*ctx_, policy, kExits, kVocab);
    VotingTokenModel model(Decoder(8), voter);
    double nll = 0;
    std::vector<double> p(kVocab);
    for (size_t t = 0; t + 1 < tokens_.size(); ++t) {
      const auto out = model.Step(tokens_[t]);
      ASSERT_TRUE(out.ok());
      vote::Softmax(*out, 1, p);
      nll -= std::log(p[static_cast<size_t>(tokens_[t + 1])]);
    }
    EXPECT_EQ(got[b].decided, std::vector<int64_t>(model.decided().begin(), model.decided().end()))
        << bounds[b];
    EXPECT_NEAR(got[b].nll, nll / static_cast<double>(n), 1e-4) << bounds[b];
  }
}

}  // namespace
}  // namespace edgewise::infer
