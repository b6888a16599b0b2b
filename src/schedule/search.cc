#include "schedule/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "base/rng.h"
#include "base/units.h"

namespace edgewise::schedule {
namespace {

using plan::Choice;
using plan::Plan;
using plan::Workload;

constexpr int kAnnealingSteps = 200;
constexpr int64_t kSpills = 8;  // shares of the layers that are tried

// Layers that keep what they keep in memory, in even steps and all of them (-1).
std::vector<int64_t> InMemory(int64_t layers, Use spill) {
  std::vector<int64_t> out = {-1};
  if (spill == Use::kNever) return out;
  const int64_t step = (layers + kSpills - 1) / kSpills;
  for (int64_t n = layers - 1; n > 0; n -= step) out.push_back(n);
  if (layers > 0) out.push_back(0);
  return out;
}

// Group sizes worth trying: all of them where they are few, else powers of two and all.
std::vector<int64_t> Groups(int64_t micro_batches, int64_t only) {
  if (only > 0) return {std::min(only, micro_batches)};
  std::vector<int64_t> out;
  const bool few = micro_batches <= kMaxGroups;
  for (int64_t g = 1; g <= micro_batches; g = few ? g + 1 : g * 2) out.push_back(g);
  if (out.back() != micro_batches) out.push_back(micro_batches);
  return out;
}

class Searcher {
 public:
  Searcher(const plan::Device& device, const DescribeFn& describe, const SearchOptions& options)
      : device_(device), describe_(describe), o_(options) {}

  // Whether it fits and reads nothing: less memory would be no use.
  Result<bool> Try(const Choice& choice) {
    EW_ASSIGN(const Workload* w, Describe(choice));
    ++candidates_;
    Result<Plan> plan = Evaluate(device_, *w, choice, o_);
    const int64_t least = HeldBeside(*w, choice) + w->largest_unit();
    if (smallest_ == 0 || least < smallest_) {
      smallest_ = least;
      smallest_choice_ = choice;
    }
    if (!plan.ok()) {
      if (plan.status().code() != StatusCode::kOutOfMemory) return plan.status();
      return false;
    }
    const bool all = plan->loaded_bytes == 0;
    const int64_t cost = o_.spill == Use::kAuto ? plan->stored_bytes : 0;
    if (o_.uncertainty > 0) {
      sound_.push_back({plan->choice, cost, plan->predicted_seconds,
                        plan->loaded_bytes + plan->stored_bytes, plan->predicted_peak_bytes});
    }
    // Of two equally fast plans the smaller one.
    std::optional<Plan>& best = best_[cost];
    const bool better = !best || plan->predicted_seconds < best->predicted_seconds * (1 - 1e-9) ||
                        (plan->predicted_seconds < best->predicted_seconds * (1 + 1e-9) &&
                         plan->predicted_peak_bytes < best->predicted_peak_bytes);
    if (better) best = std::move(*plan);
    return all;
  }

  // Of the plans that are not clearly slower than the fastest the one that costs least beside time.
  Plan* Best() {
    double fastest = std::numeric_limits<double>::infinity();
    for (const auto& [cost, plan] : best_) fastest = std::min(fastest, plan->predicted_seconds);
    for (auto& [cost, plan] : best_) {
      if (plan->predicted_seconds * (1 - kClearly) <= fastest) return &*plan;
    }
    return nullptr;
  }

  // Of the plans that cost no more and are as fast, as far as predictions tell, the one that moves
  // least: reads and writes vary more than arithmetic does.
  Status Settle() {
    Plan* best = Best();
    if (best == nullptr || sound_.empty()) return Status::Ok();
    const double close = best->predicted_seconds * (1 + o_.uncertainty);
    const int64_t cost = o_.spill == Use::kAuto ? best->stored_bytes : 0;
    const Sound* least = nullptr;
    for (const Sound& s : sound_) {
      if (s.cost > cost || s.seconds > close) continue;
      if (least == nullptr || std::tuple(s.moved, s.seconds, s.peak) <
                                  std::tuple(least->moved, least->seconds, least->peak)) {
        least = &s;
      }
    }
    EW_ASSIGN(const Workload* w, Describe(least->choice));
    EW_ASSIGN(Plan plan, Evaluate(device_, *w, least->choice, o_));
    plan.seed = best->seed;
    best_.clear();
    best_[least->cost] = std::move(plan);
    return Status::Ok();
  }

  // Every piece of the MLP that may be worth it, every share of the layers' pieces on disk.
  Status TryPieces(Choice c) {
    for (const int64_t mlp_tokens : plan::MlpPieces(o_.mlp_tokens, c.tokens)) {
      // Kept MLPs come as a whole.
      const bool pieces = o_.smaller_pieces && c.recompute != plan::Recompute::kNone;
      if (mlp_tokens < o_.mlp_tokens && !pieces) break;
      c.mlp_tokens = mlp_tokens;
      EW_ASSIGN(const Workload* w, Describe(c));
      bool all = false;
      for (const int64_t in_memory : InMemory(w->kept_layers(), o_.spill)) {
        c.layers_in_memory = in_memory;
        EW_ASSIGN(const bool one, Try(c));
        all = all || (one && in_memory < 0);
      }
      if (all) break;
    }
    return Status::Ok();
  }

  // Group sizes between the powers of two, from the best one on.
  Status Anneal() {
    const Plan* best = Best();
    if (best == nullptr || best->choice.micro_batches <= kMaxGroups || o_.group != 0)
      return Status::Ok();
    Rng rng(o_.seed, RngStream::kPolicy);
    Choice current = best->choice;
    double now = best->predicted_seconds;
    for (int i = 0; i < kAnnealingSteps; ++i) {
      Choice next = current;
      const double reach = std::max(1.0, static_cast<double>(current.group) *
                                             (1.0 - static_cast<double>(i) / kAnnealingSteps));
      next.group = std::clamp<int64_t>(
          current.group + static_cast<int64_t>((rng.NextDouble() * 2 - 1) * reach), 1,
          current.micro_batches);
      EW_ASSIGN(const Workload* w, Describe(next));
      const Result<Plan> plan = Evaluate(device_, *w, next, o_);
      EW_RETURN_IF_ERROR(Try(next).status());
      if (!plan.ok()) continue;
      const double heat = 0.05 * now * (1.0 - static_cast<double>(i) / kAnnealingSteps) + 1e-12;
      if (rng.NextDouble() < std::exp((now - plan->predicted_seconds) / heat)) {
        current = next;
        now = plan->predicted_seconds;
      }
    }
    Best()->seed = o_.seed;
    return Status::Ok();
  }

  Result<Plan> Finish() {
    if (Plan* best = Best()) {
      best->candidates = candidates_;
      return std::move(*best);
    }
    return OutOfMemory(fmt::format(
        "no plan fits {}. The smallest limit that works is --memory {}MiB (micro-batches of {} "
        "tokens{}{}); a lower --rank, fewer --bits or --method edge make it smaller",
        FormatBytes(o_.memory_limit), (smallest_ >> 20) + 1, smallest_choice_.tokens,
        smallest_choice_.recompute != plan::Recompute::kNone ? ", activations recomputed" : "",
        smallest_choice_.layers_in_memory >= 0 ? ", inputs of layers on disk" : ""));
  }

 private:
  // Workloads differ by these only.
  Result<const Workload*> Describe(const Choice& c) {
    const Key key(c.tokens, c.micro_batches, c.recompute, c.mlp_tokens);
    const auto found = workloads_.find(key);
    if (found != workloads_.end()) return &found->second;
    EW_ASSIGN(Workload w, describe_(c));
    return &workloads_.emplace(key, std::move(w)).first->second;
  }

  struct Sound {
    Choice choice;
    int64_t cost = 0;  // beside time
    double seconds = 0;
    int64_t moved = 0, peak = 0;  // bytes
  };

  const plan::Device& device_;
  const DescribeFn& describe_;
  const SearchOptions& o_;
  using Key = std::tuple<int64_t, int64_t, plan::Recompute, int64_t>;
  std::map<Key, Workload> workloads_;
  // The fastest by what they cost beside time.
  std::map<int64_t, std::optional<Plan>> best_;
  std::vector<Sound> sound_;  // that fit; with uncertainty only
  int64_t candidates_ = 0, smallest_ = 0;
  Choice smallest_choice_;
};

}  // namespace

Result<Plan> Search(const plan::Device& device, const DescribeFn& describe,
                    const SearchOptions& o) {
  if (o.tokens < 1 || o.max_tokens < 1) return InvalidArgument("a step has at least one token");
  Searcher searcher(device, describe, o);
  for (int64_t tokens = std::min(o.max_tokens, o.tokens);; tokens /= 2) {
    const int64_t micro_batches = (o.tokens + tokens - 1) / tokens;
    for (int64_t group : Groups(micro_batches, o.group)) {
      for (const plan::Recompute recompute : o.recompute) {
        Choice c;
        c.tokens = tokens;
        c.micro_batches = micro_batches;
        c.group = group;
        c.recompute = recompute;
        c.overlap = o.overlap;
        EW_RETURN_IF_ERROR(searcher.TryPieces(c));
      }
    }
    if (!o.split_batches || tokens / 2 < 64) break;
  }
  EW_RETURN_IF_ERROR(searcher.Anneal());
  EW_RETURN_IF_ERROR(searcher.Settle());
  return searcher.Finish();
}

}  // namespace edgewise::schedule
