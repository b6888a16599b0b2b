// The timeline of one choice: two streams beside the computation, weights kept by the order of use.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "base/units.h"
#include "schedule/cost.h"
#include "schedule/search.h"

namespace edgewise::schedule {
namespace {

using plan::Choice;
using plan::Plan;
using plan::Visit;
using plan::Workload;

// Squares in the order of the traversal: groups of micro-batches pass through all stages, within a
// group a stage is finished first, and stages that are joined count as one.
std::vector<Visit> Order(const Workload& w, const Choice& c) {
  std::vector<Visit> order;
  for (int64_t first = 0; first < c.micro_batches; first += c.group) {
    const int64_t last = std::min(first + c.group, c.micro_batches);
    for (size_t s = 0, end = 0; s < w.stages.size(); s = end) {
      for (end = s + 1; end < w.stages.size() && w.stages[end - 1].joined;) ++end;
      for (int64_t m = first; m < last; ++m) {
        for (size_t part = s; part < end; ++part) {
          order.push_back({static_cast<int32_t>(part), static_cast<int32_t>(m), {}, {}});
        }
      }
    }
  }
  return order;
}

class Timeline {
 public:
  Timeline(const plan::Device& d, const Workload& w, const Choice& c, const SearchOptions& o)
      : w_(w), c_(c) {
    const plan::MemoryLevel& disk = d.disk();
    const bool cached = o.cached_disk && disk.cached_read_gbps > 0;
    if (c.overlap && d.threads > 0) {
      // A read that keeps a processor busy is slower and slows the computation, which has them all:
      // the scheduler shares one evenly between the reader and a computing thread. Copying from the
      // page cache is nothing else.
      const double busy = cached ? 1 : std::min(disk.processors, 1.0);
      read_slower_ = 1 + 0.5 * busy;
      compute_loses_ = busy / d.threads;
    }
    read_ = cached ? disk.cached_read_gbps : disk.read_gbps;
    optimizer_gbps_ = d.memory().read_gbps;
    spill_read_ = o.spill_read_gbps > 0 ? o.spill_read_gbps : read_;
    write_ = disk.write_gbps > 0 ? disk.write_gbps : disk.read_gbps;
    spilled_ = w.spilled_layers(c.layers_in_memory);
    std::map<int32_t, int64_t> away;  // layers whose pieces go to the disk, by order
    for (const plan::Stage& s : w.stages) {
      costs_.push_back(CostOf(d, s));
      if (s.kept_bytes <= 0 || std::ssize(away) >= spilled_) continue;
      away.emplace(s.layer, std::ssize(away));
      piece_bytes_.push_back(w.filled * static_cast<double>(s.kept_bytes));
    }
    for (const plan::Stage& s : w.stages) {
      const auto found = s.kept_bytes > 0 || s.backward ? away.find(s.layer) : away.end();
      piece_.push_back(found != away.end() ? found->second : -1);
    }
    last_end_.assign(w.units.size(), 0);
    resident_.assign(w.units.size(), false);
  }

  // One step after another: the second one starts from what the first one left in memory.
  void Run(Plan* plan) {
    plan->visits = Order(w_, c_);
    visits_ = plan->visits.size();
    uses_.assign(w_.units.size(), {});
    for (size_t i = 0; i < visits_; ++i) {
      const int32_t unit = UnitOf(plan->visits[i]);
      if (unit >= 0) uses_[static_cast<size_t>(unit)].push_back(i);
    }
    Step(plan->visits, nullptr);
    const double begin = now_;
    for (Visit& v : plan->visits) v = {v.stage, v.micro, {}, {}};
    for (size_t u = 0; u < resident_.size(); ++u) {
      if (resident_[u]) plan->resident.push_back(static_cast<int32_t>(u));
    }
    loaded_ = stored_ = 0;
    streams_ = {};
    origin_ = begin;
    Step(plan->visits, plan);
    plan->predicted_seconds = now_ - begin;
    plan->streams = streams_;
    plan->loaded_bytes = loaded_;
    plan->stored_bytes = stored_;
  }

 private:
  int32_t UnitOf(const Visit& v) const { return w_.stages[static_cast<size_t>(v.stage)].unit; }

  // Position of the unit's next use after `from`, going on into the next step.
  size_t NextUse(int32_t unit, size_t from) const {
    const std::vector<size_t>& uses = uses_[static_cast<size_t>(unit)];
    if (uses.empty()) return std::numeric_limits<size_t>::max();
    const auto next = std::upper_bound(uses.begin(), uses.end(), from);
    return next != uses.end() ? *next : visits_ + uses.front();
  }

  void Step(std::vector<Visit>& visits, Plan* plan) {
    for (size_t i = 0; i < visits.size(); ++i) {
      Visit& v = visits[i];
      const plan::Stage& stage = w_.stages[static_cast<size_t>(v.stage)];
      double ready = 0;
      if (stage.unit >= 0 && !resident_[static_cast<size_t>(stage.unit)]) {
        ready = LoadUnit(i, &v, plan);
      }
      int slot = -1;
      if (piece_[static_cast<size_t>(v.stage)] >= 0) ready = std::max(ready, Slot(&v, &slot, plan));
      const double start = std::max(now_, ready);
      const double seconds = costs_[static_cast<size_t>(v.stage)].seconds;
      now_ = start + seconds;
      streams_.compute += seconds;
      AddSpan(plan, 'c', start, now_, stage.name);
      if (stage.unit >= 0) last_end_[static_cast<size_t>(stage.unit)] = now_;
      if (slot >= 0) {
        // What stays blocks its slot until it is used.
        const bool stays = !stage.backward && !v.store;
        slot_free_[slot] = stays ? std::numeric_limits<double>::infinity() : now_;
      }
      if (v.store) {
        const double bytes =
            piece_bytes_[static_cast<size_t>(piece_[static_cast<size_t>(v.stage)])];
        const double from = std::max(store_free_, now_);
        store_free_ = slot_free_[slot] = from + bytes * 1e-9 / write_;
        if (!c_.overlap) now_ = store_free_;
        streams_.store += bytes * 1e-9 / write_;
        stored_ += static_cast<int64_t>(bytes);
        AddSpan(plan, 's', from, store_free_, stage.name + " activations");
      }
    }
    // The optimiser waits for all gradients, and nothing overlaps with it.
    const double seconds = w_.optimizer_gbytes / optimizer_gbps_;
    AddSpan(plan, 'c', now_, now_ + seconds, "optimiser");
    now_ += seconds;
    streams_.compute += seconds;
  }

  // When the slot of a piece is there for a forward visit, or the piece for a backward one.
  double Slot(Visit* v, int* slot, Plan* plan) {
    const int64_t piece = piece_[static_cast<size_t>(v->stage)];
    const int64_t first = v->micro / c_.group * c_.group;
    const int64_t group = std::min(c_.group, c_.micro_batches - first), row = v->micro - first;
    const plan::Stage& stage = w_.stages[static_cast<size_t>(v->stage)];
    const bool stays = plan::StaysInSlot(piece, spilled_, row, group);
    int& stay = stay_slot_[static_cast<size_t>(stays ? (spilled_ - 1 - piece) * group + row : 0)];
    if (stays && stage.backward) {
      *slot = stay;
      return 0;
    }
    const auto free = std::min_element(slot_free_, slot_free_ + plan::kSpillSlots);
    *slot = static_cast<int>(free - slot_free_);
    const double from = *free;
    if (!stage.backward) {
      if (stays) stay = *slot;
      v->store = !stays;
      return from;
    }
    v->fetch = true;
    const double seconds = piece_bytes_[static_cast<size_t>(piece)] * 1e-9 / spill_read_;
    const double start = std::max({load_free_, store_free_, from, c_.overlap ? 0.0 : now_});
    load_free_ = start + seconds;
    streams_.load += seconds;
    loaded_ += static_cast<int64_t>(piece_bytes_[static_cast<size_t>(piece)]);
    AddSpan(plan, 'l', start, load_free_, stage.name + " activations");
    return load_free_;
  }

  double LoadUnit(size_t i, Visit* v, Plan* plan) {
    const int32_t unit = UnitOf(*v);
    const int64_t bytes = w_.units[static_cast<size_t>(unit)].bytes;
    double start = std::max(load_free_, c_.overlap ? 0.0 : now_);
    std::vector<std::pair<size_t, int32_t>> victims;
    for (size_t u = 0; u < resident_.size(); ++u) {
      if (!resident_[u]) continue;
      victims.emplace_back(NextUse(static_cast<int32_t>(u), i), static_cast<int32_t>(u));
    }
    std::sort(victims.rbegin(), victims.rend());
    for (const auto& [next, u] : victims) {
      if (held_ + bytes <= c_.weight_budget) break;
      resident_[static_cast<size_t>(u)] = false;
      held_ -= w_.units[static_cast<size_t>(u)].bytes;
      // Its room is free once its last use is over.
      start = std::max(start, last_end_[static_cast<size_t>(u)]);
      v->evict.push_back(u);
    }
    const double alone = static_cast<double>(bytes) * 1e-9 / read_;
    const double seconds = alone * read_slower_;
    // What the reader takes of the processors, the computation lacks.
    now_ += alone * compute_loses_;
    streams_.compute += alone * compute_loses_;
    resident_[static_cast<size_t>(unit)] = true;
    held_ += bytes;
    v->load.push_back(unit);
    loaded_ += bytes;
    streams_.load += seconds;
    load_free_ = start + seconds;
    AddSpan(plan, 'l', start, load_free_, w_.units[static_cast<size_t>(unit)].name);
    return load_free_;
  }

  void AddSpan(Plan* plan, char stream, double begin, double end, const std::string& name) const {
    if (plan == nullptr || end <= begin) return;
    plan->timeline.push_back({stream, begin - origin_, end - origin_, name});
  }

  double optimizer_gbps_ = 1;
  const Workload& w_;
  const Choice& c_;
  double read_ = 1, write_ = 1, spill_read_ = 1;
  int64_t spilled_ = 0;              // layers
  std::vector<int64_t> piece_;       // of each stage: the spilled layer that it fills or uses; -1
  std::vector<double> piece_bytes_;  // of each spilled layer
  double slot_free_[plan::kSpillSlots] = {};  // when
  int stay_slot_[plan::kSpillSlots] = {};     // of the pieces that are used first
  double read_slower_ = 1, compute_loses_ = 0;
  std::vector<OpCost> costs_;
  size_t visits_ = 0;                      // of a step
  std::vector<std::vector<size_t>> uses_;  // of each unit, positions among them
  std::vector<bool> resident_;
  std::vector<double> last_end_;
  int64_t held_ = 0, loaded_ = 0, stored_ = 0;
  double now_ = 0, load_free_ = 0, store_free_ = 0, origin_ = 0;
  plan::Streams streams_;
};

}  // namespace

int64_t HeldBeside(const Workload& w, const Choice& c) {
  return w.fixed_bytes() + c.group * w.kept_bytes(c.layers_in_memory) +
         (w.spilled_layers(c.layers_in_memory) > 0 ? w.slot_bytes : 0);
}

Result<Plan> Evaluate(const plan::Device& device, const Workload& w, const Choice& choice,
                      const SearchOptions& options) {
  Plan p;
  p.device = device.name;
  p.simulated = device.simulated;
  p.memory_limit = options.memory_limit;
  p.workload = w;
  p.choice = choice;
  // Rows that are under way together keep their activations together.
  const int64_t rest = HeldBeside(w, choice);
  const int64_t limit = options.memory_limit > 0 ? options.memory_limit : device.memory().bytes;
  int64_t budget = w.weight_bytes();
  if (limit > 0) budget = std::min(budget, limit - rest);
  if (budget < w.largest_unit()) {
    return OutOfMemory(
        fmt::format("{} beside {} for the largest piece of the weights do not fit {}",
                    FormatBytes(rest), FormatBytes(w.largest_unit()), FormatBytes(limit)));
  }
  p.choice.weight_budget = budget;
  p.predicted_peak_bytes = rest + budget;
  Timeline(device, w, p.choice, options).Run(&p);
  const plan::MemoryLevel& disk = device.disk();
  const double read =
      options.cached_disk && disk.cached_read_gbps > 0 ? disk.cached_read_gbps : disk.read_gbps;
  const bool offloaded = p.loaded_bytes > 0;
  for (const plan::Stage& s : w.stages) {
    const OpCost cost = CostOf(device, s);
    const double load =
        s.unit >= 0 && offloaded
            ? static_cast<double>(w.units[static_cast<size_t>(s.unit)].bytes) * 1e-9 / read
            : 0;
    p.stages.push_back({s.name, cost.seconds, load, load > cost.seconds ? disk.name : cost.bound});
  }
  return p;
}

}  // namespace edgewise::schedule
