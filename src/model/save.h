// Writing models as Hugging Face directories.
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "formats/tensor_producer.h"
#include "io/env.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/weight_table.h"
#include "tensor/dtype.h"

namespace edgewise::model {

// config.json in the form of transformers v4, which v5 reads too. `dtype` is that of the weights
// beside it. ConfigFromHf of the result gives the same model.
std::string ConfigToHf(const ModelConfig& config, DType dtype);

// Error: something of the model that config.json cannot say.
Status CheckHfConfig(const ModelConfig& config);

// values [n, cols] += scale B A of the slot, its rows row .. row + n - 1.
void AddAdapter(const LoraSlot& slot, int64_t row, int64_t n, int64_t cols, float* values);

// Rows first .. first + n - 1 of a matrix, or a vector as a whole (0, 1), as transformers stores
// them -> out, fp32. Pages of mapped weights are given back.
void ReadWeightRows(const Model& model, const WeightId& id, int64_t first, int64_t n, float* out);

// The values of a weight as transformers stores them, in `dtype`, some rows at a time: dense,
// packed, and with scale B A of `slot` (or null) added. Pages of mapped weights are given back. The
// model must outlive it.
formats::TensorProducer WeightProducer(const Model& model, const WeightId& id, DType dtype,
                                       const LoraSlot* slot = nullptr);

// Whole dense model -> `dir` (created when absent; complete once config.json is there).
// `config_json`: the text to write, the source model's own or ConfigToHf's. `dtype`: kF32, kF16 or
// kBF16, of all tensors; packed weights are unpacked. `files`: further small files (tokenizer.json,
// chat template) by plain name.
Status SaveHfModel(Env& env, const Model& model, DType dtype, std::string config_json,
                   const std::map<std::string, std::string>& files, const std::string& dir);

}  // namespace edgewise::model
