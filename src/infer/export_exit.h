// One exit of a run as an ordinary model: the layers below it with its adapter folded in, its norm
// and its head, in a Hugging Face directory; or as a PEFT adapter.
#pragma once

#include <string>

#include "base/status.h"
#include "exec/context.h"
#include "formats/hf_dir.h"
#include "infer/merge.h"
#include "model/exit_set.h"

namespace edgewise::infer {

// `base` and exit `k` of `run_dir` -> directory `out` with weights, config and tokenizer; the
// layers above the exit are left out. Written beside `out` first and renamed only when the written
// model's logits agree with the exit's. Errors: `out` exists (unless overwrite); the logits differ
// by more than max_error (kBadInput, nothing is left behind).
Result<MergeReport> ExportExitToHf(ExecContext& ctx, const formats::ModelLocation& base,
                                   const std::string& run_dir, int k, const std::string& out,
                                   const MergeOptions& options = {});

// An exit as PEFT reads it: the window's linears and the head as LoRA, the norm and a head of its
// own as saved modules. PEFT leaves no layers out: the adapter of an exit below the model's end
// belongs on the base cut to the layers below the exit (transformers: num_hidden_layers). Error: no
// such exit, I/O.
Status ExportExitToPeft(const model::ModelConfig& config, const model::ExitSet& exits, int k,
                        const std::string& base_name, const std::string& out);

}  // namespace edgewise::infer
