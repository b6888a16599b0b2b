// How the exits of one model vote on the next token (Edge-LLM, arXiv 2406.15758: the outputs of the
// tuned subsets are adaptively combined for the final inference). Pure functions on logits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise::vote {

enum class Rule {
  kSingle,     // one exit alone
  kMaxProb,    // element-wise maximum of the exits' probabilities, renormalised (released code)
  kMean,       // mean of the probabilities
  kWeighted,   // weighted sum of the probabilities
  kConfident,  // the exit whose largest probability is largest
};

struct VoteConfig {
  Rule rule = Rule::kSingle;
  int single_exit = 0;               // index into the exits, for kSingle
  std::vector<double> temperatures;  // one per exit; empty: all 1
  std::vector<double> weights;       // one per exit, sum 1; for kWeighted
};

std::string RuleName(const VoteConfig& config);  // "single:3", "max-prob", "mean", ...
// The inverse, "single:k" with k in [0, exits). Error: the known names.
Result<VoteConfig> ParseRule(std::string_view name, int exits);

// p = softmax(logits / temperature), computed in double. logits, out [vocab].
void Softmax(std::span<const float> logits, double temperature, std::span<double> out);
void Softmax(std::span<const double> logits, double temperature, std::span<double> out);

// Combines probabilities [exits, vocab] (each row sums to 1) into `out` [vocab]. Returns the exit
// that decided, for kSingle and kConfident (ties: the lower exit), else -1.
int Combine(const VoteConfig& config, std::span<const double> probabilities, int exits,
            std::span<double> out);

// Temperature, softmax and Combine in one. logits [exits, vocab]; scratch [exits, vocab].
int Vote(const VoteConfig& config, std::span<const float> logits, int exits,
         std::span<double> scratch, std::span<double> out);

// How sure a distribution is, for stopping early.
struct Confidence {
  int32_t top = 0;  // most likely token (ties: the lower id)
  double max_prob = 0;
  double margin = 0;   // largest minus second largest probability
  double entropy = 0;  // nats
};
Confidence ConfidenceOf(std::span<const double> probabilities);

}  // namespace edgewise::vote
