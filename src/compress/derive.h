// From a sensitivity table and a request to a policy. Pure functions.
#pragma once

#include <functional>

#include "compress/policy_file.h"
#include "compress/table.h"

namespace edgewise::compress {

enum class PolicyKind { kPaper, kPaperLiteral, kUniform, kRandom, kBudget };
Result<PolicyKind> ParsePolicyKind(std::string_view name);
std::string_view PolicyKindName(PolicyKind kind);

// Packed bytes of a linear [rows, cols] under an option (kBudget): from the real layouts.
using CostFn = std::function<int64_t(int64_t rows, int64_t cols, const Option& option)>;

struct PolicyRequest {
  PolicyKind kind = PolicyKind::kBudget;
  int bits = 4;         // B of the paper's rules; the average of `uniform`
  double sparsity = 0;  // P
  uint64_t seed = 42;   // kRandom
  int64_t group = 64;
  std::string pattern = "unstructured";
  int embedding_bits = 8, head_bits = 8;
  // kBudget: at most this many packed bytes for all linears; 0: as many as `uniform` with `bits`
  // and `sparsity` takes.
  int64_t budget = 0;
  // kBudget: options with other sparsities than 0 only when allowed.
  bool allow_sparsity = true;
};

struct DerivedPolicy {
  CompressionPolicy policy;
  // kBudget: predicted loss, cost and what no policy within the budget can beat.
  double predicted_loss = 0, lower_bound = 0;
  int64_t cost = 0, budget = 0;
  bool exact = true;
};

// Error: the table lacks a column that the policy needs, does not fit the model, or nothing fits
// the budget (says the smallest that does).
Result<DerivedPolicy> DerivePolicy(const SensitivityTable& table, const model::ModelConfig& config,
                                   const PolicyRequest& request, const CostFn& cost);

}  // namespace edgewise::compress
