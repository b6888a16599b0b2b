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

OrderedJson SharesJson(const std::vector<int64_t>& decided) {
  double all = 0;
  for (int64_t n : decided) all += static_cast<double>(n);
  OrderedJson shares = OrderedJson::array();
  for (int64_t n : decided) shares.push_back(all > 0 ? static_cast<double>(n) / all : 0);
  return shares;
}

OrderedJson EarlyStopJson(const model::ExitSet& exits,
                          const std::vector<infer::EarlyStopScore>& scores) {
  OrderedJson list = OrderedJson::array();
  for (const infer::EarlyStopScore& s : scores) {
    OrderedJson j;
    j["above"] = s.above <= 1 ? OrderedJson(s.above) : OrderedJson();
    j["decided"] = SharesJson(s.decided);
    double layers = 0;
    for (int k = 0; k < exits.size(); ++k) {
      layers += j["decided"][static_cast<size_t>(k)].get<double>() *
                static_cast<double>(exits.exit(k).end);
    }
    j["layers"] = layers;
    j["loss"] = s.nll;
    j["token_accuracy"] = s.accuracy;
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
