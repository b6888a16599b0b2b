// Exits and their vote as JSON: keys `exits` and `vote`.
#pragma once

#include <vector>

#include "infer/early_stop.h"
#include "infer/vote_policy.h"
#include "io/json.h"
#include "model/exit_set.h"

namespace edgewise::cli {

// One object per exit, with its score alone when there are scores.
OrderedJson ExitsJson(const model::ExitSet& exits, const std::vector<infer::RuleScore>& scores);
// The policy, the loss and accuracy of every rule, and what the chosen one gains over the best exit
// alone (nats a token, 95 % bootstrap interval).
OrderedJson VoteJson(const infer::VotePolicy& policy, const std::vector<infer::RuleScore>& scores,
                     const vote::Interval& gain, int64_t tokens);

// For every bound (null: none, all exits vote): the share of the tokens that ended at each exit,
// how many layers lie below it on average, loss and accuracy.
OrderedJson EarlyStopJson(const model::ExitSet& exits,
                          const std::vector<infer::EarlyStopScore>& scores);
// Shares of the tokens that ended at each exit.
OrderedJson SharesJson(const std::vector<int64_t>& decided);

}  // namespace edgewise::cli
