// Writes a model with packed matrices as a compressed base (packed_base.h).
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "io/env.h"
#include "model/model.h"

namespace edgewise::model {

// `dir` (created when absent): packed.safetensors with matrices as they are held, config.json from
// the model's config, and `files` by plain name; complete once packed.safetensors is there. The
// model must not be streamed.
Status SavePackedBase(Env& env, const Model& model, const std::map<std::string, std::string>& files,
                      const std::string& dir);

}  // namespace edgewise::model
