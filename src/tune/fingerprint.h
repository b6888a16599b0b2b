// Short names for the contents of models and data, to tell whether a run may be resumed.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise::tune {

// "xxh3:<32 hex digits>" over config.json and every *.safetensors of a model directory, or over a
// single file (GGUF), names and sizes included. Reads all of it once. Not a cryptographic hash.
Result<std::string> FingerprintModel(const std::string& path);

std::string FingerprintText(std::string_view text);

}  // namespace edgewise::tune
