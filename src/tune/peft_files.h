// The files of a PEFT adapter as results of a run.
#pragma once

#include <string>
#include <vector>

#include "model/lora.h"
#include "tune/method.h"

namespace edgewise::tune {

inline constexpr const char* kAdapterFile = "adapter_model.safetensors";
inline constexpr const char* kAdapterConfig = "adapter_config.json";

ResultFile TextFile(std::string name, std::string text);

// A safetensors file of these arrays, by their names, F32.
Result<ResultFile> TensorFile(std::string name, std::span<const model::Parameter> params);

// adapter_config.json: the adapter's configuration with its targets as a list of names, which every
// version of PEFT reads alike.
ResultFile AdapterConfigFile(const model::LoraAdapter& adapter, const std::string& base_name);
void ListTargets(const model::LoraAdapter& adapter, formats::LoraConfig* config);

}  // namespace edgewise::tune
