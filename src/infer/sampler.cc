#include "infer/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace edgewise::infer {

Status ValidateSampling(const SamplingOptions& o) {
  auto range = [](const char* name, double value, const char* allowed) {
    return InvalidArgument(fmt::format("{} {}: expected {}", name, value, allowed));
  };
  if (!(o.temperature >= 0 && o.temperature <= 100)) {
    return range("temperature", o.temperature, "0 (greedy) to 100");
  }
  if (o.top_k < 0) return range("top-k", static_cast<double>(o.top_k), "0 (all) or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) return range("top-p", o.top_p, "above 0, at most 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return range("min-p", o.min_p, "0 to 1");
  if (!(o.repetition_penalty > 0 && o.repetition_penalty <= 100)) {
    return range("repetition penalty", o.repetition_penalty, "above 0, at most 100 (1: none)");
  }
  if (o.repetition_last_n < -1) {
    return range("repetition last-n", static_cast<double>(o.repetition_last_n), "-1 or more");
  }
  return Status::Ok();
}

Sampler::Sampler(SamplingOptions options, std::vector<bool> allowed)
    : options_(options), allowed_(std::move(allowed)) {}

void Sampler::Penalize(std::span<const int32_t> history) {
  if (options_.repetition_penalty == 1 || options_.repetition_last_n == 0) return;
  if (options_.repetition_last_n > 0) {
    const auto n = std::min(history.size(), static_cast<size_t>(options_.repetition_last_n));
    history = history.last(n);
  }
  seen_.assign(history.begin(), history.end());
  std::sort(seen_.begin(), seen_.end());
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (Candidate& c : candidates_) {
    if (!std::binary_search(seen_.begin(), seen_.end(), c.id)) continue;
    c.logit = c.logit > 0 ? c.logit / penalty : c.logit * penalty;
  }
}

// Leaves the kept candidates, most likely first.
void Sampler::Filter() {
  auto more_likely = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < candidates_.size()) {
    const auto end = candidates_.begin() + options_.top_k;
    std::partial_sort(candidates_.begin(), end, candidates_.end(), more_likely);
    candidates_.erase(end, candidates_.end());
  } else {
    std::sort(candidates_.begin(), candidates_.end(), more_likely);
  }
  const double top = candidates_.front().logit;
  double total = 0;
  for (Candidate& c : candidates_) total += c.p = std::exp(c.logit - top);
  size_t keep = candidates_.size();
  if (options_.top_p < 1) {
    double sum = 0;
    for (keep = 0; keep < candidates_.size() && sum < options_.top_p * total; ++keep) {
      sum += candidates_[keep].p;
    }
  }
  // Probabilities here are relative to the largest one, which is candidates_[0].
  while (keep > 1 && candidates_[keep - 1].p < options_.min_p) --keep;
  candidates_.erase(candidates_.begin() + static_cast<int64_t>(std::max<size_t>(keep, 1)),
                    candidates_.end());
}

Result<int32_t> Sampler::Sample(std::span<const float> logits, std::span<const int32_t> history) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || (!allowed_.empty() && (i >= allowed_.size() || !allowed_[i]))) {
      continue;
    }
    candidates_.push_back({static_cast<int32_t>(i), logits[i], 0});
  }
  if (candidates_.empty()) {
    return BadInput("no token can be drawn: the model's logits are not numbers");
  }
  Penalize(history);
  if (options_.temperature == 0) {
    const Candidate* best = &candidates_.front();
    for (const Candidate& c : candidates_) {
      if (c.logit > best->logit) best = &c;
    }
    return best->id;
  }
  Filter();
  const double top = candidates_.front().logit;
  double total = 0;
  for (Candidate& c : candidates_) {
    // An infinite largest logit would make inf - inf of its own difference.
    const double difference = c.logit == candidates_.front().logit ? 0 : c.logit - top;
    total += c.p = std::exp(difference / options_.temperature);
  }
  const double u = Rng(options_.seed, RngStream::kSampler, draws_++).NextDouble() * total;
  double sum = 0;
  for (const Candidate& c : candidates_) {
    sum += c.p;
    if (u < sum) return c.id;
  }
  return candidates_.back().id;
}

}  // namespace edgewise::infer
