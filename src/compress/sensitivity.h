// Measures the sensitivity table of a model.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "compress/calibration.h"
#include "compress/compressor.h"
#include "compress/table.h"
#include "exec/context.h"
#include "model/model.h"

namespace edgewise::compress {

struct ProfileOptions {
  std::vector<int> bits = {2, 3, 4, 5, 6, 8};
  std::vector<double> ratios = {0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9};
  // Per linear, for the `budget` policy: every width without sparsity, and these widths with these
  // sparsities (n:m patterns: their own). Other combinations take more bytes than a better one.
  std::vector<int> sparse_bits = {3, 4, 5};
  std::vector<double> sparsities = {0.4, 0.5, 0.6, 0.7};
  // How the linears' options are made: pruner, quantizer, damping, group and pattern, as the
  // compression that will follow.
  CompressOptions method;
  // Tokens on which the loss of each linear's options is predicted (one backward pass); 0: skip.
  int64_t loss_tokens = 2048;
  // Windows on which the KL divergence of the final logits is measured for every option of a whole
  // layer; 0: not measured (it runs the rest of the model once per option).
  int64_t kl_windows = 0;
  // For calibration states and gradients; what does not fit goes to disk.
  int64_t memory_bytes = int64_t{1} << 30;
  std::string scratch_path = "edgewise-states.tmp";
};

struct ProfileProgress {
  int64_t layer = 0, layers = 0;
  std::string what;
};

// Per layer: round-to-nearest and Wanda (quick; the order of layers by sensitivity is what policies
// read). Per linear: by the method of the options. Error: kInterrupted when `stop` was set.
Result<SensitivityTable> MeasureSensitivity(
    ExecContext& ctx, const model::Model& model, const std::vector<TokenBatch>& windows,
    const ProfileOptions& options, const std::atomic<bool>* stop,
    const std::function<void(const ProfileProgress&)>& progress);

// Windows that losses are predicted on: so many of them, evenly spread, that they hold
// `loss_tokens` tokens (at least one; none for 0).
std::vector<size_t> LossWindows(const std::vector<TokenBatch>& windows, int64_t loss_tokens);

}  // namespace edgewise::compress
