// Writing models as Hugging Face directories.
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "io/env.h"
#include "model/model.h"
#include "tensor/dtype.h"

namespace edgewise::model {

// config.json in the form of transformers v4, which v5 reads too. `dtype` is that of the weights
// beside it. ConfigFromHf of the result gives the same model.
std::string ConfigToHf(const ModelConfig& config, DType dtype);

// Whole dense model -> `dir` (created when absent; complete once config.json is there).
// `config_json`: the text to write, the source model's own or ConfigToHf's. `dtype`: kF32, kF16 or
// kBF16, of all tensors; packed weights are unpacked. `files`: further small files (tokenizer.json,
// chat template) by plain name.
Status SaveHfModel(Env& env, const Model& model, DType dtype, std::string config_json,
                   const std::map<std::string, std::string>& files, const std::string& dir);

}  // namespace edgewise::model
