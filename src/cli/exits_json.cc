#include "cli/exits_json.h"

namespace edgewise::cli {

OrderedJson ExitsJson(const model::ExitSet& exits, const std::vector<infer::RuleScore>& scores) {
  OrderedJson list = OrderedJson::array();
  for (int k = 0; k < exits.size(); ++k) {
    const model::TunedExit& exit = exits.exit(k);
    const model::LayerRange layers = exits.streams()[static_cast<size_t>(exit.stream)].layers;
    OrderedJson j = {{"exit", k}, {"adapted_from", layers.begin}, {"layers", exit.end}};
    if (static_cast<size_t>(k) < scores.size()) {
      j["loss"] = scores[static_cast<size_t>(k)].nll;
      j["token_accuracy"] = scores[static_cast<size_t>(k)].accuracy;
    }
    list.push_back(std::move(j));
  }
  return list;
}

OrderedJson VoteJson(const infer::VotePolicy& policy, const std::vector<infer::RuleScore>& scores,
                     const vote::Interval& gain, int64_t tokens) {
  OrderedJson j;
  j["rule"] = vote::RuleName(policy.config);
  j["temperatures"] = policy.config.temperatures;
  j["weights"] = policy.config.weights;
  if (policy.stop_above > 0) j["stop_above"] = policy.stop_above;
  j["tokens"] = tokens;
  for (const infer::RuleScore& s : scores) {
    j["rules"][s.rule] = {{"loss", s.nll}, {"token_accuracy", s.accuracy}};
  }
  j["gain_over_best_exit"] = {{"mean", gain.mean}, {"low", gain.low}, {"high", gain.high}};
  return j;
}

}  // namespace edgewise::cli
