#include "infer/vote_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "io/env.h"
#include "io/json.h"

namespace edgewise::infer {
namespace {

constexpr uint64_t kBootstrapSeed = 1;
constexpr double kFitExponentials = 2e8;  // about two seconds
constexpr int kTemperatures = 17;         // of vote::TemperatureFit's grid

}  // namespace

RuleScores::RuleScores(int exits, std::vector<double> temperatures, std::vector<double> weights)
    : exits_(exits) {
  vote::VoteConfig config;
  config.temperatures = std::move(temperatures);
  for (int k = 0; k < exits; ++k) {
    config.single_exit = k;
    configs_.push_back(config);
  }
  config.single_exit = 0;
  for (vote::Rule rule :
       {vote::Rule::kMaxProb, vote::Rule::kMean, vote::Rule::kWeighted, vote::Rule::kConfident}) {
    if (exits < 2) break;
    config.rule = rule;
    config.weights = rule == vote::Rule::kWeighted ? weights : std::vector<double>();
    configs_.push_back(config);
  }
  for (const vote::VoteConfig& c : configs_) scores_.push_back({vote::RuleName(c), 0, 0, {}});
  correct_.resize(configs_.size());
}

void RuleScores::Add(std::span<const float> logits, int32_t target) {
  const size_t vocab = logits.size() / static_cast<size_t>(exits_);
  probabilities_.resize(logits.size());
  combined_.resize(vocab);
  for (size_t k = 0; k < static_cast<size_t>(exits_); ++k) {
    const double t = configs_[0].temperatures.empty() ? 1.0 : configs_[0].temperatures[k];
    vote::Softmax(logits.subspan(k * vocab, vocab), t,
                  std::span(probabilities_).subspan(k * vocab, vocab));
  }
  for (size_t r = 0; r < configs_.size(); ++r) {
    vote::Combine(configs_[r], probabilities_, exits_, combined_);
    const double p = combined_[static_cast<size_t>(target)];
    scores_[r].token_nll.push_back(-std::log(std::max(p, 1e-300)));
    correct_[r] += std::max_element(combined_.begin(), combined_.end()) - combined_.begin() ==
                   static_cast<int64_t>(target);
  }
  ++tokens_;
}

const std::vector<RuleScore>& RuleScores::Finish() {
  for (size_t r = 0; r < scores_.size() && tokens_ > 0; ++r) {
    double sum = 0;
    for (double x : scores_[r].token_nll) sum += x;
    scores_[r].nll = sum / static_cast<double>(tokens_);
    scores_[r].accuracy = static_cast<double>(correct_[r]) / static_cast<double>(tokens_);
  }
  return scores_;
}

int RuleScores::BestExit() const {
  int best = 0;
  for (int k = 1; k < exits_; ++k) {
    if (scores_[static_cast<size_t>(k)].nll < scores_[static_cast<size_t>(best)].nll) best = k;
  }
  return best;
}

vote::Interval RuleScores::GainOverBestExit(size_t rule) const {
  const std::vector<double>& single = scores_[static_cast<size_t>(BestExit())].token_nll;
  std::vector<double> gain(single.size());
  for (size_t t = 0; t < gain.size(); ++t) gain[t] = single[t] - scores_[rule].token_nll[t];
  return vote::BootstrapMean(gain, kBootstrapSeed);
}

Result<CalibrationResult> CalibrateVote(ExitScorer& scorer, std::span<const TokenBatch> batches,
                                        int exits, int64_t vocab, const std::atomic<bool>* stop) {
  CalibrationResult out;
  const auto fits = [&](size_t b) { return batches.size() < 2 || b % 2 == 0; };
  const auto chooses = [&](size_t b) { return batches.size() < 2 || b % 2 == 1; };
  const auto run = [&](auto wanted, const auto& fn) {
    for (size_t b = 0; b < batches.size(); ++b) {
      if (!wanted(b)) continue;
      if (stop != nullptr && stop->load()) {
        return Status(StatusCode::kInterrupted, "stopped while the vote was fitted");
      }
      const TokenBatch& batch = batches[b];
      EW_RETURN_IF_ERROR(scorer.Score(batch, [&](int64_t t, std::span<const float> logits) {
        fn(logits, batch.targets[static_cast<size_t>(t)]);
      }));
    }
    return Status::Ok();
  };
  // Every n-th token is enough for one temperature per exit.
  int64_t supervised = 0;
  for (size_t b = 0; b < batches.size(); ++b) {
    if (!fits(b)) continue;
    for (int32_t target : batches[b].targets) supervised += target >= 0;
  }
  const double cost = static_cast<double>(vocab) * exits * kTemperatures;
  const auto every = std::max<int64_t>(
      1,
      static_cast<int64_t>(std::ceil(static_cast<double>(supervised) * cost / kFitExponentials)));
  vote::TemperatureFit temperatures(exits);
  EW_RETURN_IF_ERROR(run(fits, [&](std::span<const float> logits, int32_t target) {
    if (out.fit_tokens++ % every != 0) return;
    for (int k = 0; k < exits; ++k) {
      temperatures.Add(
          k, logits.subspan(static_cast<size_t>(k * vocab), static_cast<size_t>(vocab)), target);
    }
  }));
  if (out.fit_tokens == 0) return BadInput("the held-out data has no supervised token");
  const std::vector<double> best = temperatures.Best();

  std::vector<double> target_probability, p(static_cast<size_t>(vocab));
  EW_RETURN_IF_ERROR(run(fits, [&](std::span<const float> logits, int32_t target) {
    for (int k = 0; k < exits; ++k) {
      vote::Softmax(logits.subspan(static_cast<size_t>(k * vocab), static_cast<size_t>(vocab)),
                    best[static_cast<size_t>(k)], p);
      target_probability.push_back(p[static_cast<size_t>(target)]);
    }
  }));
  const std::vector<double> weights = vote::FitWeights(target_probability, exits);

  RuleScores scores(exits, best, weights);
  EW_RETURN_IF_ERROR(run(
      chooses, [&](std::span<const float> logits, int32_t target) { scores.Add(logits, target); }));
  if (scores.tokens() == 0) return BadInput("the held-out data has too few supervised tokens");
  out.choose_tokens = scores.tokens();
  out.scores = scores.Finish();
  size_t chosen = static_cast<size_t>(scores.BestExit());
  for (size_t r = static_cast<size_t>(exits); r < out.scores.size(); ++r) {
    if (out.scores[r].nll < out.scores[chosen].nll && scores.GainOverBestExit(r).low > 0) {
      chosen = r;
    }
  }
  out.gain = scores.GainOverBestExit(chosen);
  EW_ASSIGN(out.policy.config, vote::ParseRule(out.scores[chosen].rule, exits));
  out.policy.config.temperatures = best;
  out.policy.config.weights = weights;
  return out;
}

std::string VotePolicyJson(const VotePolicy& policy) {
  OrderedJson j;
  j["rule"] = vote::RuleName(policy.config);
  j["temperatures"] = policy.config.temperatures;
  j["weights"] = policy.config.weights;
  if (policy.stop_above > 0) j["stop_above"] = policy.stop_above;
  return DumpJson(j);
}

Result<VotePolicy> ParseVotePolicy(std::string_view text, int exits) {
  EW_ASSIGN(const Json json, ParseJson(text));
  VotePolicy policy;
  try {
    const auto rule = json.at("rule").get<std::string>();
    EW_ASSIGN(policy.config, vote::ParseRule(rule, exits));
    policy.config.temperatures = json.at("temperatures").get<std::vector<double>>();
    policy.config.weights = json.at("weights").get<std::vector<double>>();
    policy.stop_above = json.value("stop_above", 0.0);
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("the vote: {}", e.what()));
  }
  for (const auto* list : {&policy.config.temperatures, &policy.config.weights}) {
    if (list->size() != static_cast<size_t>(exits)) {
      return BadInput(fmt::format("the vote has {} values for {} exits", list->size(), exits));
    }
    for (double v : *list) {
      if (!std::isfinite(v) || v < 0 || (list == &policy.config.temperatures && v == 0)) {
        return BadInput(fmt::format("the vote holds the value {}", v));
      }
    }
  }
  if (!(policy.stop_above >= 0 && policy.stop_above <= 1)) {
    return BadInput(fmt::format("the vote stops above {}, not a probability", policy.stop_above));
  }
  return policy;
}

Result<std::optional<VotePolicy>> ReadVotePolicy(const std::string& run_dir, int exits) {
  const std::string path = JoinPath(run_dir, "edgewise.json");
  EW_ASSIGN(const Json json, ReadJsonFile(path));
  if (!json.is_object() || !json.contains("vote") || json["vote"].is_null()) {
    return std::optional<VotePolicy>();
  }
  EW_ASSIGN(VotePolicy policy, ParseVotePolicy(json["vote"].dump(), exits).WithContext(path));
  return std::optional<VotePolicy>(std::move(policy));
}

Voter::Voter(ExecContext& ctx, VotePolicy policy, int exits, int64_t vocab)
    : ctx_(ctx),
      policy_(std::move(policy)),
      vocab_(vocab),
      probabilities_(static_cast<size_t>(exits * vocab)),
      combined_(static_cast<size_t>(vocab)),
      out_(static_cast<size_t>(vocab)) {}

std::span<const float> Voter::Combine(std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(vocab_);
  const int computed = static_cast<int>(logits.size() / vocab);
  vote::VoteConfig config = policy_.config;
  if (config.rule == vote::Rule::kSingle || computed == 1) {
    const int k = std::min(config.single_exit, computed - 1);
    const auto scale = static_cast<float>(1 / temperature(k));
    const auto row = logits.subspan(static_cast<size_t>(k) * vocab, vocab);
    std::transform(row.begin(), row.end(), out_.begin(), [&](float z) { return z * scale; });
    return out_;
  }
  ctx_.ParallelFor(computed, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t k = begin; k < end; ++k) {
      const size_t at = static_cast<size_t>(k) * vocab;
      vote::Softmax(logits.subspan(at, vocab), temperature(static_cast<int>(k)),
                    std::span(probabilities_).subspan(at, vocab));
    }
  });
  if (config.rule == vote::Rule::kWeighted) {
    // Of the exits that were reached.
    config.weights.resize(static_cast<size_t>(computed));
    double sum = 0;
    for (double w : config.weights) sum += w;
    for (double& w : config.weights) w = sum > 0 ? w / sum : 1.0 / computed;
  }
  vote::Combine(config, std::span(probabilities_).first(static_cast<size_t>(computed) * vocab),
                computed, combined_);
  constexpr double kLeast = std::numeric_limits<float>::min();
  ctx_.ParallelFor(vocab_, 1 << 12, [&](int64_t begin, int64_t end, int) {
    for (int64_t v = begin; v < end; ++v) {
      const auto i = static_cast<size_t>(v);
      out_[i] = static_cast<float>(std::log(std::max(combined_[i], kLeast)));
    }
  });
  return out_;
}

double Voter::Confidence(int exit, std::span<const float> logits) const {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float z : logits) sum += std::exp(static_cast<double>(z - top) / temperature(exit));
  return 1 / sum;
}

}  // namespace edgewise::infer
