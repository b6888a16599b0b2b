#include "schedule/check.h"

#include <fmt/format.h>

#include <set>
#include <utility>
#include <vector>

namespace edgewise::schedule {

Status CheckPlan(const plan::Plan& p) {
  const plan::Workload& w = p.workload;
  const auto stages = static_cast<int64_t>(w.stages.size());
  const auto units = static_cast<int32_t>(w.units.size());
  std::vector<int64_t> done(static_cast<size_t>(p.choice.micro_batches), 0);
  std::vector<int64_t> kept(done.size(), 0);  // bytes that a micro-batch holds
  // Of layers whose pieces go to the disk: those (layer, micro-batch) in a slot and on the disk.
  const int64_t spilled = w.spilled_layers(p.choice.layers_in_memory);
  std::set<int32_t> away;
  for (const plan::Stage& s : w.stages) {
    if (s.kept_bytes > 0 && static_cast<int64_t>(away.size()) < spilled) away.insert(s.layer);
  }
  std::set<std::pair<int32_t, int32_t>> in_slot, on_disk;
  const int64_t slots = spilled > 0 ? w.slot_bytes : 0;
  std::set<int32_t> resident;
  int64_t weights = 0;
  const auto load = [&](int32_t u) {
    if (u < 0 || u >= units) return false;
    if (resident.insert(u).second) weights += w.units[static_cast<size_t>(u)].bytes;
    return true;
  };
  for (int32_t u : p.resident) {
    if (!load(u)) return Internal(fmt::format("the plan keeps unit {}, which does not exist", u));
  }
  int64_t activations = 0;
  for (const plan::Visit& v : p.visits) {
    if (v.stage < 0 || v.stage >= stages || v.micro < 0 || v.micro >= p.choice.micro_batches) {
      return Internal(fmt::format("the plan visits stage {} of micro-batch {}", v.stage, v.micro));
    }
    const plan::Stage& stage = w.stages[static_cast<size_t>(v.stage)];
    for (int32_t u : v.evict) {
      if (resident.erase(u) == 0) {
        return Internal(fmt::format("the plan drops unit {}, which is not in memory", u));
      }
      weights -= w.units[static_cast<size_t>(u)].bytes;
    }
    for (int32_t u : v.load) {
      if (!load(u)) return Internal(fmt::format("the plan reads unit {}, which does not exist", u));
    }
    if (weights > p.choice.weight_budget) {
      return Internal(fmt::format("weights of {} bytes in memory, more than the {} planned",
                                  weights, p.choice.weight_budget));
    }
    if (stage.unit >= 0 && resident.count(stage.unit) == 0) {
      return Internal(fmt::format("{} runs without its weights", stage.name));
    }
    int64_t& next = done[static_cast<size_t>(v.micro)];
    if (next != v.stage) {
      return Internal(fmt::format("{} of micro-batch {} runs before what it needs, or twice",
                                  stage.name, v.micro));
    }
    ++next;
    int64_t& own = kept[static_cast<size_t>(v.micro)];
    if (v.stage == 0) own += w.micro_bytes, activations += w.micro_bytes;
    if (away.count(stage.layer) == 0) {
      own += stage.kept_bytes;
      activations += stage.kept_bytes;
      if (v.store || v.fetch) {
        return Internal(fmt::format("{} has nothing on the disk", stage.name));
      }
    } else if (stage.kept_bytes > 0 || stage.backward) {
      const std::pair piece(stage.layer, v.micro);
      if (v.fetch && on_disk.erase(piece) == 0) {
        return Internal(
            fmt::format("{} of micro-batch {} reads what was not written", stage.name, v.micro));
      }
      if (!stage.backward || v.fetch) in_slot.insert(piece);
      if (static_cast<int64_t>(in_slot.size()) > plan::kSpillSlots) {
        return Internal(fmt::format("{} of micro-batch {} finds no slot", stage.name, v.micro));
      }
      if (stage.backward && in_slot.erase(piece) == 0) {
        return Internal(fmt::format("{} of micro-batch {} runs without what its layer kept",
                                    stage.name, v.micro));
      }
      if (v.store && in_slot.erase(piece) > 0) on_disk.insert(piece);
    }
    // A micro-batch that is through holds nothing.
    if (next == stages) {
      activations -= own;
      own = 0;
    }
    if (p.memory_limit > 0 && w.fixed_bytes() + slots + activations + weights > p.memory_limit) {
      return Internal(fmt::format("{} of micro-batch {} takes {} bytes, the limit is {}",
                                  stage.name, v.micro,
                                  w.fixed_bytes() + slots + activations + weights, p.memory_limit));
    }
    if (w.fixed_bytes() + slots + activations + weights > p.predicted_peak_bytes) {
      return Internal(fmt::format("the peak of the plan is {} bytes, it states {}",
                                  w.fixed_bytes() + slots + activations + weights,
                                  p.predicted_peak_bytes));
    }
  }
  for (size_t m = 0; m < done.size(); ++m) {
    if (done[m] != stages) {
      return Internal(fmt::format("micro-batch {} ends after {} of {} stages", m, done[m], stages));
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::schedule
