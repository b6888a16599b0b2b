// After tuning: fits the vote of the run's exits on its held-out data and keeps it in the run.
#pragma once

#include "cli/command.h"
#include "cli/tune_data.h"
#include "io/json.h"
#include "model/model.h"

namespace edgewise::cli {

struct TunedVote {
  OrderedJson exits = OrderedJson::array();
  OrderedJson vote;  // null: nothing to vote on
};

// RUN/edgewise.json gets the keys "exits" and "vote". `model` is the base. Nothing to do for a run
// without exits. Without held-out data every exit is listed and the deepest one is chosen.
Result<TunedVote> FitRunVote(Invocation& inv, const model::Model& model, const std::string& run_dir,
                             const TuneData& data, int64_t max_tokens, int64_t split_tokens);

}  // namespace edgewise::cli
