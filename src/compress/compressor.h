// Compresses a model layer by layer into a packed base (model/packed_base.h).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compress/calibration.h"
#include "compress/policy_file.h"
#include "compress/report.h"
#include "exec/context.h"
#include "model/model.h"

namespace edgewise::compress {

enum class Pruner { kSparseGpt, kWanda, kMagnitude };
enum class Quantizer { kGptq, kRtn };
Result<Pruner> ParsePruner(std::string_view name);        // "sparsegpt", "wanda", "magnitude"
Result<Quantizer> ParseQuantizer(std::string_view name);  // "gptq", "rtn"
std::string_view PrunerName(Pruner pruner);
std::string_view QuantizerName(Quantizer quantizer);

struct CompressOptions {
  CompressionPolicy policy;
  Pruner pruner = Pruner::kSparseGpt;
  Quantizer quantizer = Quantizer::kGptq;
  double percdamp = 0.01;
  int64_t memory_bytes = int64_t{1} << 30;  // for calibration states; beyond that they go to disk
  // Files of the source directory that the result takes over (config.json, tokenizer, template).
  std::string source_dir;
  // Further such files by name, for a source that is not a directory.
  std::map<std::string, std::string> files;
  std::string source_hash;  // of the source's weights; part of what a resumed run is checked by
};

struct CompressProgress {
  int64_t layer = 0, layers = 0;
  std::string what;
};

// Writes OUT/ (created): packed.safetensors, edgewise.json (policy and report), config and
// tokenizer. Inputs of every layer come from the layers already compressed (sequential
// propagation); within a layer, from its linears already compressed. A layer that is finished is
// kept in OUT/.partial, so that an interrupted run goes on after it and ends in the same bytes;
// a run that was finished already is recognised and only reported.
// Errors: kInterrupted; an OUT that holds something else.
Result<CompressReport> CompressModel(ExecContext& ctx, const model::Model& model,
                                     const std::vector<TokenBatch>& windows,
                                     const CompressOptions& options, const std::string& out,
                                     const std::atomic<bool>* stop,
                                     const std::function<void(const CompressProgress&)>& progress);

}  // namespace edgewise::compress
