// Models with random weights that are made packed, matrix by matrix: benchmarks of compressed bases
// that would not fit as floats.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "kernels/packed/format.h"
#include "model/model.h"

namespace edgewise::model {

struct RandomPackedOptions {
  kernels::PackedFormat linears;  // rows and cols are filled in
  double density = 1;             // of kUnstructured and kBlock
  int embedding_bits = 8;         // 4 (groups of 64) or 8 (one scale per row)
  int head_bits = 8;              // of an untied head
  uint64_t seed = 1;
};

// Normal weights of standard deviation 0.02 (norm gains 1, biases 0), a pure function of the
// arguments. Error: a bad config or format, no memory.
Result<std::unique_ptr<Model>> MakeRandomPackedModel(const ModelConfig& config,
                                                     const RandomPackedOptions& options);

}  // namespace edgewise::model
