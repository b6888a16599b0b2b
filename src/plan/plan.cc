#include "plan/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace edgewise::plan {

using nlohmann::ordered_json;

int64_t Workload::weight_bytes() const {
  int64_t bytes = 0;
  for (const WeightUnit& u : units) bytes += u.bytes;
  return bytes;
}

int64_t Workload::largest_unit() const {
  int64_t bytes = 0;
  for (const WeightUnit& u : units) bytes = std::max(bytes, u.bytes);
  return bytes;
}

int64_t Workload::kept_layers() const {
  return std::count_if(stages.begin(), stages.end(),
                       [](const Stage& s) { return s.kept_bytes > 0; });
}

int64_t Workload::spilled_layers(int64_t layers_in_memory) const {
  return layers_in_memory < 0 ? 0 : std::max<int64_t>(0, kept_layers() - layers_in_memory);
}

int64_t Workload::kept_bytes(int64_t layers_in_memory) const {
  int64_t bytes = micro_bytes, spilled = spilled_layers(layers_in_memory);
  for (const Stage& s : stages) {
    if (s.kept_bytes > 0 && spilled-- <= 0) bytes += s.kept_bytes;
  }
  return bytes;
}

bool StaysInSlot(int64_t layer, int64_t layers, int64_t row, int64_t group) {
  const int64_t piece = layer * group + row, use = (layers - 1 - layer) * group + row;
  return piece >= layers * group - kSpillSlots && use < kSpillSlots;
}

std::string_view RecomputeName(Recompute recompute) {
  constexpr std::string_view kNames[] = {"none", "mlp", "layer"};
  return kNames[static_cast<size_t>(recompute)];
}

std::vector<int64_t> MlpPieces(int64_t largest, int64_t tokens) {
  std::vector<int64_t> out = {largest};
  for (int64_t n = largest / 2; n >= kLeastMlpTokens; n /= 2) {
    if (n < tokens) out.push_back(n);
  }
  return out;
}

double Streams::slowest() const { return std::max({compute, load, store}); }

ordered_json ToJson(const Workload& w) {
  ordered_json j = {{"model", w.model},
                    {"method", w.method},
                    {"tokens", w.tokens},
                    {"micro_batches", w.micro_batches},
                    {"recompute", w.recompute != Recompute::kNone},
                    {"recomputed", RecomputeName(w.recompute)},
                    {"state_bytes", w.state_bytes},
                    {"scratch_bytes", w.scratch_bytes},
                    {"runtime_bytes", w.runtime_bytes},
                    {"micro_bytes", w.micro_bytes},
                    {"slot_bytes", w.slot_bytes}};
  j["units"] = ordered_json::array();
  for (const WeightUnit& u : w.units) j["units"].push_back({{"name", u.name}, {"bytes", u.bytes}});
  j["stages"] = ordered_json::array();
  for (const Stage& s : w.stages) {
    ordered_json ops = ordered_json::array();
    for (const Op& op : s.ops) {
      ops.push_back({{"name", op.name},
                     {"kind", KernelKindName(op.kind)},
                     {"tokens", op.tokens},
                     {"out", op.out},
                     {"in", op.in},
                     {"bits", op.bits},
                     {"sparsity", op.sparsity},
                     {"gops", op.gops}});
    }
    j["stages"].push_back({{"name", s.name},
                           {"unit", s.unit},
                           {"backward", s.backward},
                           {"joined", s.joined},
                           {"kept_bytes", s.kept_bytes},
                           {"ops", std::move(ops)}});
  }
  return j;
}

ordered_json ToJson(const Plan& p) {
  ordered_json j;
  j["predicted_seconds"] = p.predicted_seconds;
  j["predicted_peak_bytes"] = p.predicted_peak_bytes;
  j["device"] = p.device;
  j["simulated"] = p.simulated;
  j["memory_limit_bytes"] = p.memory_limit;
  j["candidates"] = p.candidates;
  j["seed"] = p.seed;
  j["choice"] = {{"tokens", p.choice.tokens},
                 {"micro_batches", p.choice.micro_batches},
                 {"group", p.choice.group},
                 {"recompute", p.choice.recompute != Recompute::kNone},
                 {"recomputed", RecomputeName(p.choice.recompute)},
                 {"mlp_tokens", p.choice.mlp_tokens},
                 {"overlap", p.choice.overlap},
                 {"weight_budget_bytes", p.choice.weight_budget},
                 {"layers_in_memory", p.choice.layers_in_memory},
                 {"spilled_layers", p.workload.spilled_layers(p.choice.layers_in_memory)}};
  j["streams"] = {{"compute_seconds", p.streams.compute},
                  {"load_seconds", p.streams.load},
                  {"store_seconds", p.streams.store},
                  {"slowest_seconds", p.streams.slowest()}};
  j["loaded_bytes"] = p.loaded_bytes;
  j["stored_bytes"] = p.stored_bytes;
  j["layers"] = ordered_json::array();
  for (const StageCost& s : p.stages) {
    j["layers"].push_back({{"name", s.name},
                           {"seconds", s.seconds},
                           {"load_seconds", s.load_seconds},
                           {"bound", s.bound}});
  }
  j["resident"] = p.resident;
  j["visits"] = ordered_json::array();
  for (const Visit& v : p.visits) {
    ordered_json visit = {{"stage", v.stage}, {"micro", v.micro}};
    if (!v.evict.empty()) visit["evict"] = v.evict;
    if (!v.load.empty()) visit["load"] = v.load;
    if (v.store) visit["store"] = true;
    if (v.fetch) visit["fetch"] = true;
    j["visits"].push_back(std::move(visit));
  }
  j["timeline"] = ordered_json::array();
  for (const Span& span : p.timeline) {
    j["timeline"].push_back({{"stream", std::string(1, span.stream)},
                             {"begin", span.begin},
                             {"end", span.end},
                             {"name", span.name}});
  }
  j["workload"] = ToJson(p.workload);
  return j;
}

}  // namespace edgewise::plan
