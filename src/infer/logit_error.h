// Whether a model that was written computes what the one it was made from does.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/status.h"
#include "exec/context.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/training_pass.h"

namespace edgewise::infer {

// Positions that are compared, or fewer where the model has fewer.
inline constexpr int64_t kProbeTokens = 24;

// Of a head's rows, as floats, that are multiplied at a time.
inline constexpr int64_t kHeadBlockBytes = int64_t{8} << 20;

// One side: a model's files and what is tuned of it.
struct ProbedModel {
  std::string path;  // Hugging Face directory, packed base or GGUF file
  const model::LoraAdapter* lora = nullptr;
  int64_t lora_begin = 0;                                // first adapted layer
  int64_t layers = std::numeric_limits<int64_t>::max();  // the first so many, or all
  model::ExitHead head = {};                             // above them
};

// max |difference| / max |logit of `want`| over a fixed random text. Activations stay floats on
// packed weights: rounding them is not the writing's doing. Of either model one layer is in memory
// at a time, of the heads a block of rows. Errors: files that cannot be read; kBadInput: models of
// other sizes, a logit that is not a number, which must not pass as equal.
Result<double> LogitError(ExecContext& ctx, const ProbedModel& want, const ProbedModel& got);

}  // namespace edgewise::infer
