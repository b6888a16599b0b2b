// The exits of a run on a data set: each alone, every way of combining them, and the chosen one.
#pragma once

#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "eval/dataset.h"
#include "infer/early_stop.h"
#include "infer/session.h"
#include "infer/vote_policy.h"

namespace edgewise::eval {

struct ExitsOnDataset {
  std::vector<infer::RuleScore> scores;  // "single:0" .., then the other rules
  int best_exit = 0;
  size_t chosen = 0;    // index of the session's rule
  vote::Interval gain;  // of the chosen rule over the best exit alone, nats a token
  int64_t tokens = 0;   // supervised
  // With two exits or more: what the chosen rule does when tokens stop early.
  std::vector<infer::EarlyStopScore> early_stop;
};

// REQUIRES a session with exits. Errors: as LossOnDataset.
Result<ExitsOnDataset> ScoreExits(infer::Session& session,
                                  const std::vector<data::Example>& examples,
                                  const DatasetOptions& options);

}  // namespace edgewise::eval
