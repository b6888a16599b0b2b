// What compression did to a model, per linear and in sum: part of a packed base's edgewise.json.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "compress/table.h"
#include "io/json.h"
#include "model/weights.h"

namespace edgewise::compress {

struct LinearReport {
  Option option;
  int64_t bytes = 0;
  int64_t weights = 0;  // number of them, pruned ones included
  double error = 0;  // relative output error on the calibration inputs, ||X dW^T||^2 / ||X W^T||^2
};

struct CompressReport {
  std::vector<std::array<LinearReport, model::kLinearKinds>> layers;
  int64_t linear_bytes = 0;     // packed bytes of all linears
  int64_t embedding_bytes = 0;  // embedding and head
  int64_t linear_weights = 0;   // number of weights of all linears
  int64_t file_bytes = 0;
  double average_bits = 0;  // by the policy, of the linears
  double sparsity = 0;      // by the policy, of the linears
  std::vector<std::string> warnings;
  // Layers found finished from an interrupted run; not part of the JSON, which does not depend on
  // how often a run was interrupted.
  int64_t resumed_layers = 0;
};

OrderedJson ReportToJson(const CompressReport& report);
// What ReportToJson wrote. Errors name what is missing or wrong.
Result<CompressReport> ReportFromJson(const Json& json);

}  // namespace edgewise::compress
