// Multiple-choice knapsack: one option per item, the sum of losses minimal, the sum of costs within
// a budget. Solved exactly by a dynamic program over undominated partial choices, cut by the bound
// of the linear relaxation; where that grows beyond a limit, the result carries a proven gap.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace edgewise::compress {

struct KnapsackOption {
  int64_t cost = 0;  // >= 0
  double loss = 0;   // finite
};

struct KnapsackSolution {
  std::vector<int> choice;  // option index per item
  int64_t cost = 0;
  double loss = 0;
  // No choice within the budget has a loss below this. Equal to `loss` (to rounding) when exact.
  double lower_bound = 0;
  bool exact = true;
};

// Error (kOutOfMemory): even the cheapest options exceed the budget; the message gives that sum.
Result<KnapsackSolution> SolveKnapsack(std::span<const std::vector<KnapsackOption>> items,
                                       int64_t budget, size_t max_states = size_t{1} << 20);

}  // namespace edgewise::compress
