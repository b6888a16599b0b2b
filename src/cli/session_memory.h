// How a session keeps --memory: a context that suits it, and the rest for the weights.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "infer/session.h"

namespace edgewise::cli {

// Settles how many tokens are decoded in where --ctx does not say it: what the options need, else
// with `limit` (bytes; 0: none) as many as fit, which is said when the model knows more. `before`:
// resident bytes before the model was opened. Error: --ctx beyond the model's positions.
Status SetContext(Invocation& inv, infer::Session& session, int64_t limit,
                  const ModelOptions& options, int64_t before);

// Leaves the weights what the session does not take of `limit`. Error: does not fit; names the
// smallest limit that does.
Status FitSession(Invocation& inv, infer::Session& session, int64_t limit,
                  const ModelOptions& options, int64_t before);

}  // namespace edgewise::cli
