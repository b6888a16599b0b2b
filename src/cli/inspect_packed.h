// What `inspect` says about a packed base: every linear's width, sparsity, size and error.
#pragma once

#include <string>

#include "base/status.h"
#include "io/json.h"
#include "model/config.h"

namespace edgewise::cli {

// Adds "layers" (per layer and linear: bits, sparsity as stored, pattern, group, bytes, error as
// reported by the compression) and sums to `json`, a table to `text`; every linear of it when
// `details`.
Status InspectPackedBase(const std::string& directory, const model::ModelConfig& config,
                         bool details, OrderedJson& json, std::string& text);

}  // namespace edgewise::cli
