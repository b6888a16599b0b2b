// Helpers of the tests that run models: batches from reference arrays, and tolerances.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "exec/context.h"
#include "model/config.h"
#include "tensor/token_batch.h"

namespace edgewise::testing {

inline std::unique_ptr<ExecContext> MakeContext(int threads = 2) {
  ExecOptions options;
  options.threads = threads;
  auto ctx = ExecContext::Create(options);
  EXPECT_TRUE(ctx.ok()) << ctx.status().message();
  return std::move(*ctx);
}

// Rows of equal length as documents of one stream. labels[t] is the target of token t - 1; empty:
// every next token is a target.
inline TokenBatch PackRows(const std::vector<int64_t>& ids, const std::vector<int64_t>& labels,
                           int64_t row_length) {
  TokenBatch batch;
  const std::vector<int64_t>& targets = labels.empty() ? ids : labels;
  for (int64_t i = 0; i < static_cast<int64_t>(ids.size()); ++i) {
    const int64_t t = i % row_length;
    batch.ids.push_back(static_cast<int32_t>(ids[static_cast<size_t>(i)]));
    batch.positions.push_back(static_cast<int32_t>(t));
    batch.first_key.push_back(static_cast<int32_t>(i - t));
    const bool last = t + 1 == row_length;
    const int64_t target = last ? -100 : targets[static_cast<size_t>(i + 1)];
    batch.targets.push_back(target < 0 ? TokenBatch::kNoTarget : static_cast<int32_t>(target));
  }
  return batch;
}

inline int64_t CountTargets(const TokenBatch& batch) {
  return std::count_if(batch.targets.begin(), batch.targets.end(),
                       [](int32_t t) { return t >= 0; });
}

// What fp32 explains. A value passes through about 7 sums per layer of up to n terms each; their
// roundings (unit 2^-24) are independent, so errors add in quadrature and stay near
// 2^-24 sqrt(7 L n) of the largest value. `layers` counts a backward pass as twice its forward.
inline double Fp32Tolerance(const model::ModelConfig& c, int64_t layers, double largest) {
  const int64_t n = std::max({c.hidden, c.ffn, c.q_dim()});
  return 0x1.0p-24 * std::sqrt(7.0 * static_cast<double>(layers * n)) * largest;
}

template <typename T>
double LargestOf(const std::vector<T>& values) {
  double largest = 0;
  for (T v : values) largest = std::max(largest, std::abs(static_cast<double>(v)));
  return largest;
}

template <typename A, typename B>
double MaxDifference(const A* a, const std::vector<B>& b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}

// ||a - b|| / ||b||.
template <typename A, typename B>
double RelativeL2(const A* a, const std::vector<B>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

}  // namespace edgewise::testing
