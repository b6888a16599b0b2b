#include "compress/knapsack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace edgewise::compress {
namespace {

struct Candidate {
  int64_t cost;
  double loss;
  int index;
};

// A partial choice over the first items; `parent` is its position in the previous stage.
struct State {
  int64_t cost;
  double loss;
  int32_t parent;
  int32_t option;
};

// Undominated options by increasing cost and decreasing loss.
std::vector<Candidate> Undominated(const std::vector<KnapsackOption>& options) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < options.size(); ++i) {
    all.push_back({options[i].cost, options[i].loss, static_cast<int>(i)});
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.cost != b.cost ? a.cost < b.cost
                            : (a.loss != b.loss ? a.loss < b.loss : a.index < b.index);
  });
  std::vector<Candidate> kept;
  for (const Candidate& c : all) {
    if (kept.empty() || c.loss < kept.back().loss) kept.push_back(c);
  }
  return kept;
}

std::vector<Candidate> LowerHull(const std::vector<Candidate>& points) {
  std::vector<Candidate> hull;
  for (const Candidate& p : points) {
    while (hull.size() >= 2) {
      const Candidate& a = hull[hull.size() - 2];
      const Candidate& b = hull.back();
      const double ab = (a.loss - b.loss) / static_cast<double>(b.cost - a.cost);
      const double bp = (b.loss - p.loss) / static_cast<double>(p.cost - b.cost);
      if (bp < ab) break;
      hull.pop_back();
    }
    hull.push_back(p);
  }
  return hull;
}

// Linear relaxation of the items from some stage on: the loss that remains after spending a budget
// greedily on the steepest hull segments. Piecewise linear, tabulated by segment.
struct Relaxation {
  int64_t min_cost = 0;
  std::vector<int64_t> spent;  // cumulative cost above min_cost, ascending, starts at 0
  std::vector<double> loss;    // loss after spending that much

  double Bound(int64_t budget) const {
    const int64_t extra = budget - min_cost;
    if (extra < 0) return std::numeric_limits<double>::infinity();
    const auto it = std::upper_bound(spent.begin(), spent.end(), extra);
    const auto k = static_cast<size_t>(it - spent.begin()) - 1;
    if (k + 1 == spent.size()) return loss[k];
    const double t =
        static_cast<double>(extra - spent[k]) / static_cast<double>(spent[k + 1] - spent[k]);
    return loss[k] + t * (loss[k + 1] - loss[k]);
  }
};

struct Segment {
  int64_t cost;
  double gain;
  size_t item;
};

std::vector<Relaxation> Relaxations(const std::vector<std::vector<Candidate>>& hulls) {
  std::vector<Relaxation> tails(hulls.size() + 1);
  std::vector<Segment> segments;
  double base_loss = 0;
  int64_t base_cost = 0;
  tails.back().spent = {0};
  tails.back().loss = {0};
  for (size_t i = hulls.size(); i-- > 0;) {
    base_cost += hulls[i].front().cost;
    base_loss += hulls[i].front().loss;
    for (size_t k = 1; k < hulls[i].size(); ++k) {
      segments.push_back(
          {hulls[i][k].cost - hulls[i][k - 1].cost, hulls[i][k - 1].loss - hulls[i][k].loss, i});
    }
    // Steepest first; convexity keeps the order within one item.
    std::stable_sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) {
      return a.gain * static_cast<double>(b.cost) > b.gain * static_cast<double>(a.cost);
    });
    Relaxation& r = tails[i];
    r.min_cost = base_cost;
    r.spent = {0};
    r.loss = {base_loss};
    for (const Segment& s : segments) {
      r.spent.push_back(r.spent.back() + s.cost);
      r.loss.push_back(r.loss.back() - s.gain);
    }
  }
  return tails;
}

struct Choice {
  std::vector<int> options;
  int64_t cost = 0;
  double loss = 0;
};

// A feasible choice to cut against: hull segments in order of steepness while they fit.
Choice Greedy(const std::vector<std::vector<Candidate>>& hulls, int64_t budget) {
  std::vector<size_t> at(hulls.size(), 0);
  for (const auto& h : hulls) budget -= h.front().cost;
  for (;;) {
    double best = -1;
    size_t pick = hulls.size();
    for (size_t i = 0; i < hulls.size(); ++i) {
      if (at[i] + 1 == hulls[i].size()) continue;
      const Candidate& a = hulls[i][at[i]];
      const Candidate& b = hulls[i][at[i] + 1];
      if (b.cost - a.cost > budget) continue;
      const double slope = (a.loss - b.loss) / static_cast<double>(b.cost - a.cost);
      if (slope > best) {
        best = slope;
        pick = i;
      }
    }
    if (pick == hulls.size()) break;
    budget -= hulls[pick][at[pick] + 1].cost - hulls[pick][at[pick]].cost;
    ++at[pick];
  }
  Choice choice;
  for (size_t i = 0; i < hulls.size(); ++i) {
    const Candidate& c = hulls[i][at[i]];
    choice.options.push_back(c.index);
    choice.cost += c.cost;
    choice.loss += c.loss;
  }
  return choice;
}

// Keeps undominated states; when there are too many, one per bucket of cost (the one with the
// smallest loss), which gives up exactness.
bool Reduce(std::vector<State>& states, size_t max_states) {
  std::sort(states.begin(), states.end(), [](const State& a, const State& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss;
  });
  size_t n = 0;
  for (const State& s : states) {
    if (n == 0 || s.loss < states[n - 1].loss) states[n++] = s;
  }
  states.resize(n);
  if (n <= max_states) return true;
  const int64_t low = states.front().cost;
  const double width =
      static_cast<double>(states.back().cost - low + 1) / static_cast<double>(max_states);
  size_t kept = 0;
  int64_t bucket = -1;
  for (const State& s : states) {
    const auto b = static_cast<int64_t>(static_cast<double>(s.cost - low) / width);
    if (b != bucket) {
      states[kept++] = s;
      bucket = b;
    }
  }
  states.resize(kept);
  return false;
}

}  // namespace

Result<KnapsackSolution> SolveKnapsack(std::span<const std::vector<KnapsackOption>> items,
                                       int64_t budget, size_t max_states) {
  std::vector<std::vector<Candidate>> options, hulls;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].empty()) return InvalidArgument(fmt::format("item {} has no options", i));
    for (const KnapsackOption& o : items[i]) {
      if (o.cost < 0 || !std::isfinite(o.loss)) {
        return InvalidArgument(
            fmt::format("item {} has a negative cost or a loss that is not finite", i));
      }
    }
    options.push_back(Undominated(items[i]));
    hulls.push_back(LowerHull(options.back()));
  }
  const std::vector<Relaxation> tails = Relaxations(hulls);
  if (tails[0].min_cost > budget) {
    return OutOfMemory(
        fmt::format("the cheapest choice costs {}, the budget is {}", tails[0].min_cost, budget));
  }
  // Rounding slack: bounds and losses are sums in different orders.
  const double slack = 1e-12 * (1.0 + std::abs(tails[0].loss.front()));
  const Choice greedy = Greedy(hulls, budget);
  const double incumbent = greedy.loss + slack;

  KnapsackSolution out;
  out.lower_bound = tails[0].Bound(budget);
  std::vector<std::vector<State>> stages = {{{0, 0.0, -1, -1}}};
  for (size_t i = 0; i < items.size(); ++i) {
    std::vector<State> next;
    const std::vector<State>& previous = stages.back();
    for (size_t p = 0; p < previous.size(); ++p) {
      for (const Candidate& c : options[i]) {
        const int64_t cost = previous[p].cost + c.cost;
        if (cost + tails[i + 1].min_cost > budget) break;  // options ascend in cost
        const double loss = previous[p].loss + c.loss;
        if (loss + tails[i + 1].Bound(budget - cost) > incumbent) continue;
        next.push_back({cost, loss, static_cast<int32_t>(p), c.index});
      }
    }
    out.exact &= Reduce(next, max_states);
    stages.push_back(std::move(next));
  }
  // Undominated states descend in loss: the last is the best. Thinning may have lost it.
  if (stages.back().empty() || stages.back().back().loss > greedy.loss) {
    out.choice = greedy.options;
    out.cost = greedy.cost;
    out.loss = greedy.loss;
    if (out.exact) out.lower_bound = out.loss;
    return out;
  }
  size_t at = stages.back().size() - 1;
  out.cost = stages.back()[at].cost;
  out.loss = stages.back()[at].loss;
  out.choice.resize(items.size());
  for (size_t i = items.size(); i-- > 0;) {
    const State& s = stages[i + 1][at];
    out.choice[i] = s.option;
    at = static_cast<size_t>(s.parent);
  }
  if (out.exact) out.lower_bound = out.loss;
  return out;
}

}  // namespace edgewise::compress
