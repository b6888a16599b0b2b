#include "cli/tune_vote.h"

#include "cli/exits_json.h"
#include "cli/run_file.h"
#include "infer/exit_scorer.h"
#include "infer/vote_policy.h"
#include "model/exit_set.h"
#include "tune/cut_batch.h"

namespace edgewise::cli {

Result<TunedVote> FitRunVote(Invocation& inv, const model::Model& model, const std::string& run_dir,
                             const TuneData& data, int64_t max_tokens, int64_t split_tokens) {
  TunedVote out;
  if (!model::ExitSet::Exists(run_dir)) return out;
  // As written: what is calibrated is what inference will read.
  EW_ASSIGN(const model::ExitSet exits, model::ExitSet::Load(run_dir, model.config()));
  if (data.valid == nullptr || exits.size() < 2) {
    infer::VotePolicy last;
    last.config.single_exit = exits.size() - 1;
    last.config.temperatures.assign(static_cast<size_t>(exits.size()), 1.0);
    last.config.weights.assign(static_cast<size_t>(exits.size()), 1.0 / exits.size());
    out.exits = ExitsJson(exits, {});
    out.vote = VoteJson(last, {}, {}, 0);
  } else {
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    infer::ExitScorer scorer(*exec, model, exits, max_tokens);
    std::vector<TokenBatch> batches;
    for (int64_t i = 0; i < data.valid->batches_per_epoch(); ++i) {
      EW_ASSIGN(TokenBatch whole, data.valid->Get(0, i));
      for (TokenBatch& part : tune::CutBatch(std::move(whole), split_tokens)) {
        batches.push_back(std::move(part));
      }
    }
    EW_ASSIGN(
        const infer::CalibrationResult fitted,
        infer::CalibrateVote(scorer, batches, exits.size(), model.config().vocab, &inv.stop()));
    out.exits = ExitsJson(exits, fitted.scores);
    out.vote = VoteJson(fitted.policy, fitted.scores, fitted.gain, fitted.choose_tokens);
  }
  EW_RETURN_IF_ERROR(AddToRunFile(run_dir, {{"exits", out.exits}, {"vote", out.vote}}));
  return out;
}

}  // namespace edgewise::cli
