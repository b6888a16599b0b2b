// How long a run will take, by its first micro-batch.
#pragma once

#include <cstdint>

#include "cli/tune_data.h"
#include "tune/edge_method.h"
#include "tune/method.h"

namespace edgewise::cli {

struct PredictRequest {
  const TuneData& data;
  int64_t steps = 0, grad_accum = 1;
  uint64_t seed = 0;
  int64_t validations = 0;
};

// A method whose steps all cost the same.
Result<double> PredictSeconds(tune::Method& method, const PredictRequest& request);
// Adaptive layer tuning with a cache: the trunk once per document, then windows alone. `method` has
// no cache, so that one step of it runs both.
Result<double> PredictEdgeSeconds(tune::EdgeMethod& method, const model::ModelConfig& config,
                                  const PredictRequest& request);

}  // namespace edgewise::cli
