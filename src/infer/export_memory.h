// What writing a model and comparing it take at most, before they begin: --memory is a promise.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/status.h"
#include "exec/context.h"
#include "infer/logit_error.h"
#include "model/model.h"

namespace edgewise::infer {

// Bytes of one side of LogitError in memory.
struct ProbeBytes {
  int64_t layer = 0;  // of the largest layer
  int64_t ends = 0;   // of embedding or head at a time
};

// Of a model that is there already, as its files store it.
ProbeBytes ProbeBytesOf(const model::Model& model);
// Of one that is to be written. `bytes`: of a matrix in the file, `blocks`: whether it is quantised
// there, so that it is held as a whole.
struct WrittenMatrix {
  int64_t bytes = 0;
  bool blocks = false;
};
ProbeBytes ProbeBytesOf(const model::ModelConfig& config,
                        const std::function<WrittenMatrix(const model::WeightId&)>& written);

// Of a Hugging Face directory made from `base`, with `config` and its types or the one wanted.
ProbeBytes DenseProbeBytes(const model::Model& base, const model::ModelConfig& config,
                           std::optional<DType> wanted);

// What writing takes beside what is resident before it.
int64_t WritingBytes();
// What LogitError of `want`, whose base is `base`, takes beside that.
int64_t LogitErrorBytes(ExecContext& ctx, const model::Model& base, const ProbedModel& want,
                        const ProbeBytes& base_bytes, const ProbeBytes& written);

// What makes a model directory smaller.
inline constexpr const char* kDTypeAdvice =
    "one layer is in memory at a time, which a type of two bytes (--dtype bf16) makes smaller than "
    "fp32";

// The predicted peak of the process: what it has had at most, or what is resident now and `work`
// more. Error (kOutOfMemory) when `limit` (0: none) is smaller, with the smallest that works and
// `advice`, what would make it smaller.
Result<int64_t> FitExport(int64_t limit, int64_t work, const std::string& advice);

}  // namespace edgewise::infer
