// The sensitivity table: how much each layer and each linear suffers from each way of compressing
// it. Made once by `edgewise profile`, a file that can be read, reused and plotted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/json.h"

namespace edgewise::compress {

// One way of compressing: bits == 16 means not quantised.
struct Option {
  int bits = 16;
  double sparsity = 0;
  friend bool operator==(const Option&, const Option&) = default;
};

struct Measure {
  Option option;
  // Mean squared error of the output (of the decoder layer, or of the linear) on calibration text,
  // inputs from the original model; and relative to the mean square of the original output.
  double mse = 0;
  double relative = 0;
  // Predicted rise of the loss, nats per token; negative: not measured. For a linear it is
  // 1/2 E[(g . dy)^2] with g the gradient of the loss with respect to the output and dy its error
  // (second order with the empirical Fisher matrix); for a layer the measured KL divergence of the
  // final logits.
  double loss = -1;
};

struct LinearSensitivity {
  std::string name;  // "q_proj"
  int64_t rows = 0, cols = 0;
  std::vector<Measure> measures;  // the grid bits x sparsity
};

struct LayerSensitivity {
  std::vector<Measure> quantized;  // all linears of the layer at these bits, no sparsity
  std::vector<Measure> pruned;     // all linears at this sparsity, not quantised
  std::vector<LinearSensitivity> linears;
};

struct SensitivityTable {
  std::string model_hash;        // of the weights' files
  std::string calibration_hash;  // of the calibration tokens
  int64_t windows = 0, window_tokens = 0;
  int64_t group = 0;  // inputs per scale used for the quantised measures; 0: per row
  // How the linears' options were made. (Those of whole layers: "rtn" and "wanda", always.)
  std::string quantizer;  // "rtn", "gptq"
  std::string pruner;     // "magnitude", "wanda", "sparsegpt"
  std::string pattern = "unstructured";
  std::vector<LayerSensitivity> layers;

  // The two scalars per layer that the paper's rules read: the quantisation error at `bits`, and
  // the pruning error averaged over all ratios. Error: the table has no such column.
  Result<std::vector<double>> QuantScalars(int bits) const;
  Result<std::vector<double>> PruneScalars() const;
};

OrderedJson TableToJson(const SensitivityTable& table);
// Checks shapes and finiteness. Errors name the key.
Result<SensitivityTable> TableFromJson(const Json& json);

}  // namespace edgewise::compress
