#include "model/parameters.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.h"
#include "model/weight_table.h"

namespace edgewise::model {

bool LayerGradients::any() const {
  const bool norms = attn_norm != nullptr || mlp_norm != nullptr || attn_post_norm != nullptr ||
                     mlp_post_norm != nullptr || q_norm != nullptr || k_norm != nullptr;
  return norms || std::any_of(linears.begin(), linears.end(), [](const LinearGradients& g) {
           return g.weight != nullptr || g.bias != nullptr || g.lora_a != nullptr ||
                  g.lora_b != nullptr;
         });
}

int64_t GradientMap::first_layer() const {
  if (embedding != nullptr) return 0;
  const auto first =
      std::find_if(layers.begin(), layers.end(), [](const LayerGradients& l) { return l.any(); });
  return first - layers.begin();
}

void ParameterSet::Add(std::string name, std::vector<int64_t> shape, float* value,
                       float** grad_slot) {
  int64_t count = 1;
  for (int64_t d : shape) count *= d;
  params_.push_back({std::move(name), std::move(shape), count, value, nullptr});
  grad_slots_.push_back(grad_slot);
  count_ += count;
}

void ParameterSet::AllocateGrads() {
  grads_ = FloatBuffer::Zeros(count_);
  float* next = grads_.data();
  for (size_t i = 0; i < params_.size(); ++i) {
    params_[i].grad = *grad_slots_[i] = next;
    next += params_[i].count;
  }
  grad_slots_.clear();
}

ParameterSet ParameterSet::ForLora(LoraAdapter& adapter, LayerRange layers) {
  ParameterSet set;
  set.map_.layers.resize(static_cast<size_t>(adapter.num_layers()));
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LoraSlot* s = adapter.slot(layer, kind);
      if (s == nullptr) continue;
      LinearGradients& g =
          set.map_.layers[static_cast<size_t>(layer)].linears[static_cast<size_t>(kind)];
      set.Add(PeftTensorName(layer, kind, false), {s->r, s->in}, s->a, &g.lora_a);
      set.Add(PeftTensorName(layer, kind, true), {s->out, s->r}, s->b, &g.lora_b);
    }
  }
  set.AllocateGrads();
  return set;
}

Result<ParameterSet> ParameterSet::ForModel(Model& model) {
  if (!model.trainable()) {
    return InvalidArgument("the model's weights are read-only: call Model::MakeTrainable first");
  }
  ParameterSet set;
  set.map_.layers.resize(model.config().layers.size());
  for (const WeightId& id : ListWeights(model.config())) {
    set.Add(HfName(model.config(), id), ShapeOf(model.config(), id), model.MutableData(id),
            &GradientOf(set.map_, id));
  }
  set.AllocateGrads();
  if (model.config().tied) set.map_.head = set.map_.embedding;
  return set;
}

double ParameterSet::GradNorm(ExecContext& ctx) const {
  return std::sqrt(kernels::SumSquares(ctx, grads_.size(), grads_.data()));
}

}  // namespace edgewise::model
