// From logits to a token: penalties, filters, temperature, draw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace edgewise::infer {

// Applied in this order (that of llama.cpp): repetition penalty, top-k, top-p, min-p, temperature.
struct SamplingOptions {
  double temperature = 0.8;        // 0: the most likely token, nothing else counts but the penalty
  int64_t top_k = 40;              // keep the k most likely; 0: all
  double top_p = 0.95;             // keep the fewest whose probabilities reach p; 1: all
  double min_p = 0.05;             // drop those below min_p times the largest probability; 0: none
  double repetition_penalty = 1;   // arXiv 1909.05858: positive logits / p, negative ones * p
  int64_t repetition_last_n = 64;  // of this many last tokens, prompt included; -1: all
  uint64_t seed = 0;
};

// Error: the option, its value and its range.
Status ValidateSampling(const SamplingOptions& options);

class Sampler {
 public:
  // `allowed` [vocab]: false for ids that no token stands behind (padded embeddings); such an id is
  // never drawn. Empty: all.
  Sampler(SamplingOptions options, std::vector<bool> allowed);

  // The next token. `history`: all tokens so far, prompt included. A pure function of the options,
  // the logits, the history and the number of draws so far. Equal logits: the smaller id wins.
  // Error: every logit is NaN or forbidden.
  Result<int32_t> Sample(std::span<const float> logits, std::span<const int32_t> history);

 private:
  struct Candidate {
    int32_t id;
    float logit;
    double p;
  };
  void Penalize(std::span<const int32_t> history);
  void Filter();

  SamplingOptions options_;
  std::vector<bool> allowed_;
  uint64_t draws_ = 0;
  std::vector<Candidate> candidates_;  // kept from call to call: no allocation while generating
  std::vector<int32_t> seen_;
};

}  // namespace edgewise::infer
