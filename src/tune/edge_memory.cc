// What windows and their exits take.
#include <algorithm>

#include "tune/edge_method.h"
#include "tune/memory_estimate.h"

namespace edgewise::tune {

report::HeldMemory EdgeMethod::Held() const {
  report::HeldMemory held;
  held.weights = HeldWeightBytes(model_);
  held.trainable = held.gradients = ParameterBytes(params_);
  const model::PassMemory pass = pass_.memory();
  held.activations = pass.activations;
  // Start states here and in the trunk.
  const int64_t start = pass_.max_tokens() * model_.config().hidden;
  held.scratch = pass.scratch + TeacherScratch(pass_.max_tokens()) +
                 (start_.size() + start) * static_cast<int64_t>(sizeof(float));
  return held;
}

bool EdgeMethod::TrainsNorm(const Exit& exit) const {
  return options_.train_norm && !(cumulative() && exit.end == model_.config().num_layers());
}

int64_t EdgeMethod::HeadParameters(const Exit& exit) const {
  const int64_t hidden = model_.config().hidden, vocab = model_.config().vocab;
  if (options_.head == HeadMode::kCopy) {
    return (TrainsNorm(exit) ? hidden : 0) + vocab * hidden;
  }
  return (TrainsNorm(exit) ? hidden : 0) + options_.head_lora_rank * (hidden + vocab);
}

int64_t EdgeMethod::ParametersOf(std::span<const Exit> windows) const {
  int64_t count = 0;
  for (const Exit& exit : windows) {
    count += HeadParameters(exit);
    for (int64_t l = exit.begin; l < exit.end; ++l) {
      count += layer_params_[0][static_cast<size_t>(l)].set.count();
    }
  }
  return count;
}

model::PassMemory EdgeMethod::MemoryNeeded(int64_t max_tokens) {
  std::vector<model::PassOptions> passes;
  for (int e = 0; e < static_cast<int>(exits_.size()); ++e) {
    passes.push_back(WindowPass(e, /*train=*/true));
  }
  return MemoryOf(passes, max_tokens);
}

model::PassMemory EdgeMethod::MemoryNeeded(int64_t max_tokens, std::span<const Exit> windows) {
  std::vector<model::PassOptions> passes;
  for (const Exit& exit : windows) {
    model::PassOptions& o = passes.emplace_back(WindowPass(0, /*train=*/true));
    o.begin = o.lora_begin = exit.begin;
    o.end = exit.end;
  }
  return MemoryOf(passes, max_tokens);
}

model::PassMemory EdgeMethod::MemoryOf(std::span<model::PassOptions> windows, int64_t max_tokens) {
  model::PassMemory most;
  for (model::PassOptions& o : windows) {
    o.start_hidden = start_.data();
    const model::PassMemory one = pass_.MemoryNeeded(o, max_tokens);
    most.activations = std::max(most.activations, one.activations);
    most.scratch = std::max(most.scratch, one.scratch);
    // The layers below it, whose states are made without gradients.
    model::PassOptions below;
    below.end = o.begin;
    below.start_hidden = start_.data();
    below.mlp_rows = mlp_rows_;
    most.scratch = std::max(most.scratch, pass_.MemoryNeeded(below, max_tokens).scratch);
  }
  most.scratch += TeacherScratch(max_tokens);
  // Start states here, of each micro-batch of a group, and in the trunk.
  const int64_t start = max_tokens * model_.config().hidden * static_cast<int64_t>(sizeof(float));
  most.activations += start;
  most.scratch += start;
  return most;
}

}  // namespace edgewise::tune
