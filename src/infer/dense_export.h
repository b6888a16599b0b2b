// Packed bases and GGUF files as ordinary Hugging Face directories with the same values.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "formats/hf_dir.h"
#include "model/model.h"
#include "model/weight_table.h"

namespace edgewise::infer {

// Whether the weights of a model are not plain tensors (packed base, GGUF file).
bool NeedsDenseExport(const formats::ModelLocation& location);

// `wanted`, else the weight's own type when it is 16 bits wide, else fp32, which every packed or
// quantised value fits exactly.
DType DenseTypeOf(const model::Model& model, const model::WeightId& id,
                  std::optional<DType> wanted);

// config.json: that of the directory (naming the new type when one is wanted), or made from the
// description in a GGUF file. Error: something that config.json cannot say.
Result<std::string> DenseConfig(const formats::ModelLocation& location, const model::Model& model,
                                std::optional<DType> wanted);

// The small files that go with a model's weights: tokenizer, templates, generation settings. Those
// that a directory has, or made from the vocabulary of a GGUF file.
Status AddCompanionFiles(const formats::ModelLocation& location, formats::HfDirWriter& writer);

struct DenseReport {
  int64_t tensors = 0, bytes = 0;
  int64_t predicted_peak_bytes = 0;  // resident
};
// Writes the model to `out`, in place of what is there. Error (kOutOfMemory): it takes more resident
// memory than `memory_bytes` (0: no limit); nothing has been touched.
Result<DenseReport> ExportDense(const formats::ModelLocation& location, std::optional<DType> wanted,
                                const std::string& out, int64_t memory_bytes = 0);

}  // namespace edgewise::infer
