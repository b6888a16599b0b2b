// Whether a model that was written computes what the one it was made from does.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/status.h"

namespace edgewise::infer {

// Logits after one more token.
using LogitsStep = std::function<Result<std::span<const float>>(int32_t token)>;

// Positions that are compared, or fewer where the model has fewer.
inline constexpr int64_t kProbeTokens = 24;

// max |difference| / max |logit of `want`| over `positions` of a fixed
// random text. Error (kBadInput): a logit that is not a number, which must not pass as equal.
Result<double> LogitError(int64_t vocab, int64_t positions, const LogitsStep& want,
                          const LogitsStep& got);

}  // namespace edgewise::infer
