// Measures the sensitivity table of a model.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "compress/calibration.h"
#include "compress/table.h"
#include "exec/context.h"
#include "model/model.h"

namespace edgewise::compress {

struct ProfileOptions {
  std::vector<int> bits = {2, 3, 4, 5, 6, 8};
  std::vector<double> ratios = {0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9};
  // Per linear, every width is combined with these sparsities for the `budget` policy.
  std::vector<double> linear_sparsities = {0, 0.3, 0.5, 0.7};
  int64_t group = 64;
  // Tokens on which the loss of each linear's options is predicted (one backward pass); 0: skip.
  int64_t loss_tokens = 1024;
  int64_t memory_bytes = int64_t{1} << 30;  // for calibration states; beyond that they go to disk
  std::string scratch_path = "edgewise-states.tmp";
};

struct ProfileProgress {
  int64_t layer = 0, layers = 0;
  std::string what;
};

// Quantisation is round-to-nearest, pruning Wanda (both need no second-order pass, so a profile is
// quick; the order of layers by sensitivity is what policies read). Error: kInterrupted when `stop`
// was set.
Result<SensitivityTable> MeasureSensitivity(
    ExecContext& ctx, const model::Model& model, const std::vector<TokenBatch>& windows,
    const ProfileOptions& options, const std::atomic<bool>* stop,
    const std::function<void(const ProfileProgress&)>& progress);

}  // namespace edgewise::compress
