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
  // Per linear, for the `budget` policy: every width without sparsity, and these (n:m patterns:
  // `bits` with their own sparsity). Other combinations take more bytes than a better one; the
  // extreme ones are for linears that hardly matter.
  std::vector<Option> sparse_options = {{2, 0.5}, {2, 0.7}, {2, 0.9}, {3, 0.4}, {3, 0.5},
                                        {3, 0.6}, {3, 0.7}, {3, 0.9}, {4, 0.4}, {4, 0.5},
                                        {4, 0.6}, {4, 0.7}, {5, 0.4}, {5, 0.5}};
  // How the linears' options are made: pruner, quantizer, damping, group and pattern, as the
  // compression that will follow.
  CompressOptions method;
  // Windows (evenly spread) on which whole layers are compared; all of them make the Hessians.
  int64_t layer_windows = 8;
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

// So many windows, evenly spread, that they hold `tokens` tokens (at least one; none for 0): those
// that losses are predicted on.
std::vector<size_t> SpreadWindows(const std::vector<TokenBatch>& windows, int64_t tokens);

}  // namespace edgewise::compress
