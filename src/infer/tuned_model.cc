#include "infer/tuned_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/save.h"

namespace edgewise::infer {

using model::WeightRole;

Result<std::unique_ptr<TunedModel>> TunedModel::Open(const formats::ModelLocation& base,
                                                     const std::string& tuned, int exit) {
  std::unique_ptr<TunedModel> m(new TunedModel());
  m->path_ = base.path;
  EW_ASSIGN(m->base_, model::Model::Load(base.path, {.keep_quant = true}));
  m->config_ = m->base_->config();
  if (tuned.empty()) return m;
  if (!model::ExitSet::Exists(tuned)) {
    EW_ASSIGN(m->adapter_, model::LoadPeftAdapter(tuned, m->config_));
    return m;
  }
  EW_ASSIGN(m->exits_, model::ExitSet::Load(tuned, m->config_));
  const int k = exit < 0 ? m->exits_->size() - 1 : exit;
  if (k >= m->exits_->size()) {
    return InvalidArgument(
        fmt::format("exit {}: the exits of {} are 0 to {}", k, tuned, m->exits_->size() - 1));
  }
  m->exit_ = &m->exits_->exit(k);
  m->head_slot_ = m->exit_->HeadSlot();
  m->config_.layers.resize(static_cast<size_t>(m->exit_->end));
  if (m->head_slot_.r > 0 || !m->exit_->head.empty()) m->config_.tied = false;
  return m;
}

const model::LoraSlot* TunedModel::SlotOf(const model::WeightId& id) const {
  if (id.role == WeightRole::kHead && head_slot_.r > 0) return &head_slot_;
  if (id.role != WeightRole::kLinear) return nullptr;
  if (adapter_) return adapter_->slot(id.layer, id.kind);
  if (exit_ == nullptr) return nullptr;
  const model::ExitStream& stream = exits_->streams()[static_cast<size_t>(exit_->stream)];
  return stream.lora != nullptr && stream.layers.contains(id.layer)
             ? stream.lora->slot(id.layer, id.kind)
             : nullptr;
}

void TunedModel::Rows(const model::WeightId& id, int64_t first, int64_t n, float* out) const {
  if (exit_ != nullptr && id.role == WeightRole::kFinalNorm && !exit_->norm.empty()) {
    std::copy_n(exit_->norm.data(), exit_->norm.size(), out);
  } else if (exit_ != nullptr && id.role == WeightRole::kHead && !exit_->head.empty()) {
    const int64_t hidden = config_.hidden;
    std::copy_n(exit_->head.data() + first * hidden, n * hidden, out);
  } else {
    // What is a head of its own here may be the embedding there.
    const bool tied = id.role == WeightRole::kHead && base_->config().tied;
    model::ReadWeightRows(*base_, tied ? model::WeightId{WeightRole::kEmbedding} : id, first, n,
                          out);
  }
  const model::LoraSlot* slot = SlotOf(id);
  if (slot != nullptr) model::AddAdapter(*slot, first, n, slot->in, out);
}

ProbedModel TunedModel::probed() const {
  ProbedModel p{.path = path_};
  if (adapter_) p.lora = &*adapter_;
  if (exit_ == nullptr) return p;
  const model::ExitStream& stream = exits_->streams()[static_cast<size_t>(exit_->stream)];
  p.lora = stream.lora;
  p.lora_begin = stream.layers.begin;
  p.layers = exit_->end;
  p.head = exit_->Head();
  return p;
}

}  // namespace edgewise::infer
