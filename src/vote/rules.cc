#include "vote/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace edgewise::vote {
namespace {

template <typename T>
void SoftmaxImpl(std::span<const T> logits, double temperature, std::span<double> out) {
  double top = -INFINITY;
  for (T x : logits) top = std::max(top, static_cast<double>(x));
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    out[i] = std::exp((static_cast<double>(logits[i]) - top) / temperature);
    sum += out[i];
  }
  for (double& p : out) p /= sum;
}

}  // namespace

void Softmax(std::span<const float> logits, double temperature, std::span<double> out) {
  SoftmaxImpl(logits, temperature, out);
}
void Softmax(std::span<const double> logits, double temperature, std::span<double> out) {
  SoftmaxImpl(logits, temperature, out);
}

std::string RuleName(const VoteConfig& config) {
  switch (config.rule) {
    case Rule::kSingle:
      return fmt::format("single:{}", config.single_exit);
    case Rule::kMaxProb:
      return "max-prob";
    case Rule::kMean:
      return "mean";
    case Rule::kWeighted:
      return "weighted";
    case Rule::kConfident:
      return "confident";
  }
  return "?";
}

Result<VoteConfig> ParseRule(std::string_view name, int exits) {
  VoteConfig config;
  if (name == "max-prob") {
    config.rule = Rule::kMaxProb;
  } else if (name == "mean") {
    config.rule = Rule::kMean;
  } else if (name == "weighted") {
    config.rule = Rule::kWeighted;
    config.weights.assign(static_cast<size_t>(exits), 1.0 / exits);
  } else if (name == "confident") {
    config.rule = Rule::kConfident;
  } else if (name.starts_with("single:")) {
    const std::string_view digits = name.substr(7);
    const auto [end, ec] =
        std::from_chars(digits.data(), digits.data() + digits.size(), config.single_exit);
    if (ec != std::errc() || end != digits.data() + digits.size() || config.single_exit < 0 ||
        config.single_exit >= exits) {
      return InvalidArgument(fmt::format("'{}': the exits are 0 to {}", name, exits - 1));
    }
  } else {
    return InvalidArgument(fmt::format(
        "'{}' is not a voting rule; known: max-prob, mean, weighted, confident, single:k", name));
  }
  return config;
}

int Combine(const VoteConfig& config, std::span<const double> probabilities, int exits,
            std::span<double> out) {
  const size_t vocab = out.size();
  const auto row = [&](int e) {
    return probabilities.subspan(static_cast<size_t>(e) * vocab, vocab);
  };
  switch (config.rule) {
    case Rule::kSingle:
    case Rule::kConfident: {
      int chosen = config.single_exit;
      if (config.rule == Rule::kConfident) {
        double best = -1;
        for (int e = 0; e < exits; ++e) {
          const double top = *std::max_element(row(e).begin(), row(e).end());
          if (top > best) {
            best = top;
            chosen = e;
          }
        }
      }
      std::copy(row(chosen).begin(), row(chosen).end(), out.begin());
      return chosen;
    }
    case Rule::kMaxProb: {
      std::copy(row(0).begin(), row(0).end(), out.begin());
      for (int e = 1; e < exits; ++e) {
        for (size_t v = 0; v < vocab; ++v) out[v] = std::max(out[v], row(e)[v]);
      }
      double sum = 0;
      for (double p : out) sum += p;
      for (double& p : out) p /= sum;
      return -1;
    }
    case Rule::kMean:
    case Rule::kWeighted: {
      std::fill(out.begin(), out.end(), 0.0);
      for (int e = 0; e < exits; ++e) {
        const double w =
            config.rule == Rule::kMean ? 1.0 / exits : config.weights[static_cast<size_t>(e)];
        for (size_t v = 0; v < vocab; ++v) out[v] += w * row(e)[v];
      }
      return -1;
    }
  }
  return -1;
}

int Vote(const VoteConfig& config, std::span<const float> logits, int exits,
         std::span<double> scratch, std::span<double> out) {
  const size_t vocab = out.size();
  for (int e = 0; e < exits; ++e) {
    const double t =
        config.temperatures.empty() ? 1.0 : config.temperatures[static_cast<size_t>(e)];
    const size_t at = static_cast<size_t>(e) * vocab;
    Softmax(logits.subspan(at, vocab), t, scratch.subspan(at, vocab));
  }
  return Combine(config, scratch, exits, out);
}

Confidence ConfidenceOf(std::span<const double> probabilities) {
  Confidence c;
  double second = 0;
  c.max_prob = -1;
  for (size_t v = 0; v < probabilities.size(); ++v) {
    const double p = probabilities[v];
    if (p > c.max_prob) {
      second = std::max(second, c.max_prob);
      c.max_prob = p;
      c.top = static_cast<int32_t>(v);
    } else {
      second = std::max(second, p);
    }
    if (p > 0) c.entropy -= p * std::log(p);
  }
  c.margin = c.max_prob - second;
  return c;
}

}  // namespace edgewise::vote
