// Writes a model with its adapter folded into the weights, and proves that it computes the same.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "exec/context.h"
#include "formats/hf_dir.h"
#include "model/lora.h"
#include "model/model.h"

namespace edgewise::infer {

struct MergeOptions {
  // Type of the merged matrices; unset: each as the base stores it.
  std::optional<DType> dtype;
  // The largest accepted max |logit difference| / max |logit| between base + adapter and the merged
  // model; negative: DefaultMergeError of the coarsest type written.
  double max_error = -1;
  bool overwrite = false;
  int64_t memory_bytes = 0;  // most resident memory; 0: no limit
};

struct MergeReport {
  int64_t merged = 0;                // matrices that changed
  int64_t tensors = 0;               // written
  int64_t bytes = 0;                 // of them
  double error = 0;                  // measured
  double max_error = 0;              // accepted
  int64_t predicted_peak_bytes = 0;  // resident
  std::string dtype;                 // of the merged matrices ("BF16"; several joined by '/')
};

// Rounding a weight to a type with unit roundoff u moves the logits by a small multiple of u
// relative to their size; 32 u leaves room for depth. Never below 1e-4, which fp32 summation in
// another order explains.
double DefaultMergeError(DType dtype);

// `base` (a Hugging Face directory, a packed base or a GGUF file) and the PEFT adapter in
// `adapter_dir` -> a Hugging Face directory `out` with weights, config and tokenizer. Written
// beside `out` first and renamed only when the check has passed. Errors: `out` exists (unless
// overwrite); kOutOfMemory before anything is written when memory_bytes is too little (says what
// is enough); the logits differ by more than max_error (kBadInput, with both numbers; nothing is
// left behind).
Result<MergeReport> MergeToHfDirectory(ExecContext& ctx, const formats::ModelLocation& base,
                                       const std::string& adapter_dir, const std::string& out,
                                       const MergeOptions& options = {});

}  // namespace edgewise::infer
