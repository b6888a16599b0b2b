// How many windows method edge has where one does not fit.
#include <fmt/format.h>

#include <cstdint>
#include <utility>

#include "cli/tune_fit.h"

namespace edgewise::cli {

// A run that goes on keeps its windows, and so does one that says how they are.
bool TuneFit::WindowsAreFree() const {
  const EdgeFlags& e = flags_.edge;
  return flags_.method == "edge" && !recorded_ && !flags_.given("--exits") && !e.paper_mode &&
         e.exits == 1 && e.windows == "tiled" && e.window == 0 && e.window_steps.empty();
}

Result<int64_t> TuneFit::SmallerWindows(tune::EdgeMethod* edge, int64_t tried, Status refusal) {
  if (refusal.code() != StatusCode::kOutOfMemory || !may_shrink_) return refusal;
  edge_ = edge;
  const int64_t layers = model_.config().num_layers();
  tune::ExitOptions o = edge->options().exits;
  // Each is to be tuned in one step at least.
  const std::vector<int64_t> counts =
      tune::SmallerWindows(layers, o, plan_.steps * edge->options().windows_per_step);
  int64_t smallest = smallest_ > plan_.memory_limit ? smallest_ : INT64_MAX;
  for (const int64_t count : counts) {
    if (count <= tried) continue;
    o.exits = count;
    EW_ASSIGN(instead_, tune::LayOutExits(layers, o));
    request_.trained = edge->ParametersOf(instead_);
    request_.method.recompute = asked_recompute_;
    request_.method.mlp_rows = model::kMlpRows;
    request_.method.layers_in_memory = -1;
    request_.group = 1;
    request_.used_weights = 0;
    if (may_cut_) SetSplit(0);
    Status status = FitCut();
    instead_.clear();
    if (status.ok()) return count;
    if (status.code() != StatusCode::kOutOfMemory) return status;
    if (smallest_ >= smallest) continue;
    smallest = smallest_;
    refusal =
        status.WithContext(fmt::format("in {} windows of up to {} layers, which take least", count,
                                       tune::LargestWindow(*tune::LayOutExits(layers, o))));
  }
  return refusal;
}

}  // namespace edgewise::cli
