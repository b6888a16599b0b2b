// A model of a Hugging Face directory, as it is or tuned, as one GGUF file that llama.cpp runs.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "exec/context.h"
#include "formats/ggml_quants.h"
#include "formats/hf_dir.h"

namespace edgewise::infer {

// Of the matrices: "f32", "f16", "bf16", "q8_0", "q4_0". Error: lists them.
Result<formats::GgmlType> ParseGgufType(std::string_view name);

struct GgufReport {
  int64_t tensors = 0;
  int64_t bytes = 0;     // of the file
  double error = 0;      // max |logit difference| / max |logit| against the model it was made from
  double max_error = 0;  // accepted; 0: any, as of a quantised file
  int64_t predicted_peak_bytes = 0;  // resident
};

struct GgufOptions {
  int exit = -1;  // of a run with exits: which one, from 0; -1: the deepest
  bool overwrite = false;
  int64_t memory_bytes = 0;  // most resident memory; 0: no limit
};

// `base` (a Hugging Face directory or packed base) with what was tuned of it, `tuned`: a PEFT
// adapter, a run with exits, or "". Matrices in `type`, but the embedding and the head of a q4_0
// file in q8_0, and matrices whose rows are no whole blocks in f16; norms and biases in f32.
// Vocabulary and chat template go along. The file is written beside `out` first and renamed when
// what it computes has been compared. Errors: `out` exists (unless overwrite); architectures other
// than llama, qwen2 and qwen3; a tokenizer or position scaling that GGUF cannot say; f32, f16 or
// bf16 files whose logits are off; kOutOfMemory before anything is written when memory_bytes is too
// little (says what is enough).
Result<GgufReport> ExportGguf(ExecContext& ctx, const formats::ModelLocation& base,
                              const std::string& tuned, formats::GgmlType type,
                              const std::string& out, const GgufOptions& options = {});

}  // namespace edgewise::infer
