#include "eval/exits.h"

#include <algorithm>

#include "data/packing.h"

namespace edgewise::eval {
namespace {

// Bounds that are looked at besides the session's own; the last is never reached.
constexpr double kBounds[] = {0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 2};

}  // namespace

Result<ExitsOnDataset> ScoreExits(infer::Session& session,
                                  const std::vector<data::Example>& examples,
                                  const DatasetOptions& options) {
  const size_t n = options.limit > 0 ? std::min(examples.size(), static_cast<size_t>(options.limit))
                                     : examples.size();
  int64_t row = 512;
  for (size_t i = 0; i < n; ++i) {
    row = std::max(row, static_cast<int64_t>(examples[i].ids.size()));
  }
  const std::span<const data::Example> used(examples.data(), n);
  EW_ASSIGN(const auto rows, data::PackExamples(used, data::Packing::kInOrder, row));
  const model::ExitSet& exits = *session.exits();
  const infer::VotePolicy& policy = session.voter()->policy();
  infer::ExitScorer scorer(session.exec(), session.model(), exits, row);
  std::vector<double> weights = policy.config.weights;
  if (weights.empty()) weights.assign(static_cast<size_t>(exits.size()), 1.0 / exits.size());
  infer::RuleScores scores(exits.size(), policy.config.temperatures, std::move(weights));
  std::vector<double> bounds;
  if (exits.size() > 1) bounds.assign(std::begin(kBounds), std::end(kBounds));
  if (exits.size() > 1 && policy.stop_above > 0) bounds.insert(bounds.begin(), policy.stop_above);
  infer::EarlyStopScores stops(session.exec(), policy, exits.size(), session.model().config().vocab,
                               std::move(bounds));
  int64_t done = 0;
  for (const std::vector<int64_t>& documents : rows) {
    if (options.cancel != nullptr && options.cancel->load()) {
      return Status(StatusCode::kInterrupted, "stopped before all examples were scored");
    }
    const TokenBatch batch = data::MakeBatch(used, documents);
    EW_RETURN_IF_ERROR(scorer.Score(batch, [&](int64_t t, std::span<const float> logits) {
      scores.Add(logits, batch.targets[static_cast<size_t>(t)]);
      stops.Add(logits, batch.targets[static_cast<size_t>(t)]);
    }));
    done += static_cast<int64_t>(documents.size());
    if (options.progress) options.progress(done, static_cast<int64_t>(n), 0);
  }
  if (scores.tokens() == 0) return BadInput("nothing in these examples is learned");
  ExitsOnDataset out;
  out.scores = scores.Finish();
  out.best_exit = scores.BestExit();
  const std::string rule = vote::RuleName(policy.config);
  for (size_t r = 0; r < out.scores.size(); ++r) {
    if (out.scores[r].rule == rule) out.chosen = r;
  }
  out.gain = scores.GainOverBestExit(out.chosen);
  out.tokens = scores.tokens();
  out.early_stop = stops.Finish();
  return out;
}

}  // namespace edgewise::eval
