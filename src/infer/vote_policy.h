// The vote of a run: how its exits are combined, fitted on held-out data, kept in edgewise.json.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "infer/exit_scorer.h"
#include "vote/calibration.h"
#include "vote/rules.h"

namespace edgewise::infer {

struct VotePolicy {
  vote::VoteConfig config;
  // A token whose exit gives its most likely continuation at least this probability needs no exit
  // above it; 0: all exits vote.
  double stop_above = 0;
};

// How one way of combining the exits does on held-out tokens.
struct RuleScore {
  std::string rule;  // vote::RuleName
  double nll = 0;    // mean, nats
  double accuracy = 0;
  std::vector<double> token_nll;
};

// Every exit alone ("single:k", with its temperature), then every other rule.
class RuleScores {
 public:
  RuleScores(int exits, std::vector<double> temperatures, std::vector<double> weights);
  // One token. logits [exits, vocab].
  void Add(std::span<const float> logits, int32_t target);

  const std::vector<RuleScore>& Finish();
  int64_t tokens() const { return tokens_; }
  // The best exit alone; its index among the scores is that of the exit.
  int BestExit() const;
  // By how much `rule` is better than the best exit alone: nats a token, with its interval.
  vote::Interval GainOverBestExit(size_t rule) const;

 private:
  int exits_;
  std::vector<vote::VoteConfig> configs_;
  std::vector<RuleScore> scores_;
  std::vector<int64_t> correct_;
  std::vector<double> probabilities_, combined_;
  int64_t tokens_ = 0;
};

struct CalibrationResult {
  VotePolicy policy;
  std::vector<RuleScore> scores;  // of the tokens that the rule was chosen on
  int64_t fit_tokens = 0, choose_tokens = 0;
  vote::Interval gain;  // of the chosen rule over the best exit alone
};

// Temperatures and weights from the batches with an even index, the rule from the others (from all
// when there is one batch): the best mean loss, or the best exit alone when no rule is better than
// it beyond its bootstrap interval. Error: no supervised token; kInterrupted.
Result<CalibrationResult> CalibrateVote(ExitScorer& scorer, std::span<const TokenBatch> batches,
                                        int exits, int64_t vocab, const std::atomic<bool>* stop);

std::string VotePolicyJson(const VotePolicy& policy);
Result<VotePolicy> ParseVotePolicy(std::string_view json, int exits);
// The vote in RUN/edgewise.json; nothing when it holds none.
Result<std::optional<VotePolicy>> ReadVotePolicy(const std::string& run_dir, int exits);

// Combines the logits of the exits that were computed into one distribution.
class Voter {
 public:
  Voter(ExecContext& ctx, VotePolicy policy, int exits, int64_t vocab);

  // logits [computed, vocab] of the lowest exits -> values [vocab] whose softmax is the vote, valid
  // until the next call.
  std::span<const float> Combine(std::span<const float> logits);
  // Probability that an exit gives its most likely continuation.
  double Confidence(int exit, std::span<const float> logits) const;
  // Whether this exit is sure enough to end the token.
  bool Sure(int exit, std::span<const float> logits) const {
    return policy_.stop_above > 0 && Confidence(exit, logits) >= policy_.stop_above;
  }
  const VotePolicy& policy() const { return policy_; }

 private:
  double temperature(int exit) const {
    return policy_.config.temperatures.empty()
               ? 1.0
               : policy_.config.temperatures[static_cast<size_t>(exit)];
  }

  ExecContext& ctx_;
  VotePolicy policy_;
  int64_t vocab_;
  std::vector<double> probabilities_, combined_;
  std::vector<float> out_;
};

}  // namespace edgewise::infer
