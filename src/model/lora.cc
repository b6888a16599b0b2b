#include "model/lora.h"

#include <fmt/format.h>

#include <cmath>
#include <new>

#include "base/checked.h"
#include "base/rng.h"
#include "model/model.h"

namespace edgewise::model {
namespace {

Status CheckLoraConfig(const LoraConfig& lora, int64_t layers) {
  if (lora.r < 1 || lora.r > 65536) {
    return InvalidArgument(fmt::format("LoRA rank {} is not in 1 .. 65536", lora.r));
  }
  if (!(std::isfinite(lora.lora_alpha) && lora.lora_alpha > 0)) {
    return InvalidArgument(fmt::format("LoRA alpha {} is not a positive number", lora.lora_alpha));
  }
  if (!(lora.lora_dropout >= 0 && lora.lora_dropout < 1)) {
    return InvalidArgument(fmt::format("LoRA dropout {} is not in [0, 1)", lora.lora_dropout));
  }
  if (!lora.layers_to_transform) return Status::Ok();
  for (int64_t layer : *lora.layers_to_transform) {
    if (layer < 0 || layer >= layers) {
      return InvalidArgument(fmt::format(
          "layers_to_transform names layer {}, the model has 0 .. {}", layer, layers - 1));
    }
  }
  return Status::Ok();
}

std::string LinearNames() {
  std::vector<std::string_view> names;
  for (LinearKind kind : kAllLinears) names.push_back(LinearName(kind));
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::vector<int64_t> LastLayers(const ModelConfig& config, int64_t n) {
  std::vector<int64_t> layers;
  for (int64_t i = std::max<int64_t>(0, config.num_layers() - n); i < config.num_layers(); ++i) {
    layers.push_back(i);
  }
  return layers;
}

Result<LoraAdapter> LoraAdapter::WithSlots(LoraConfig lora, Slots slots) {
  int64_t total = 0, max_rank = 0;
  for (const auto& layer : slots) {
    for (const LoraSlot& s : layer) {
      const auto size = CheckedMul(s.r, s.in + s.out);
      const auto sum = size ? CheckedAdd(total, *size) : size;
      if (!sum || *sum > (int64_t{1} << 40)) {
        return InvalidArgument(fmt::format("an adapter of rank {} is too large", s.r));
      }
      total = *sum;
      max_rank = std::max(max_rank, s.r);
    }
  }
  LoraAdapter adapter;
  try {
    adapter.values_ = FloatBuffer::Zeros(total);
  } catch (const std::bad_alloc&) {
    return OutOfMemory(fmt::format("there is no memory for the {} values of the adapter", total));
  }
  float* next = adapter.values_.data();
  for (auto& layer : slots) {
    for (LoraSlot& s : layer) {
      if (s.r == 0) continue;
      s.a = next;
      s.b = s.a + s.r * s.in;
      next = s.b + s.out * s.r;
    }
  }
  adapter.lora_ = std::move(lora);
  adapter.slots_ = std::move(slots);
  adapter.max_rank_ = max_rank;
  return adapter;
}

Result<LoraAdapter> LoraAdapter::Create(const ModelConfig& config, const LoraConfig& lora,
                                        uint64_t seed) {
  EW_RETURN_IF_ERROR(CheckLoraConfig(lora, config.num_layers()));
  EW_ASSIGN(const formats::LoraMatcher matcher, formats::LoraMatcher::Create(lora));
  Slots slots(config.layers.size());
  bool any = false;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      const auto match = matcher.Match(LinearPath(layer, kind));
      if (!match) continue;
      if (match->r < 1 || match->r > 65536) {
        return InvalidArgument(
            fmt::format("rank {} of {} is not in 1 .. 65536", match->r, LinearPath(layer, kind)));
      }
      const LinearShape shape = ShapeOf(config, kind);
      slots[static_cast<size_t>(layer)][static_cast<size_t>(kind)] = {
          match->r, shape.in, shape.out, static_cast<float>(match->scaling), nullptr, nullptr};
      any = true;
    }
  }
  if (!any) {
    return InvalidArgument(fmt::format(
        "no linear layer of the model matches the adapter's targets; there are {}", LinearNames()));
  }
  EW_ASSIGN(LoraAdapter adapter, WithSlots(lora, std::move(slots)));
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LoraSlot* slot = adapter.slot(layer, kind);
      if (slot == nullptr) continue;
      Rng rng(seed, RngStream::kInit,
              static_cast<uint64_t>(layer * kLinearKinds) + static_cast<uint64_t>(kind));
      const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(slot->in)));
      for (int64_t i = 0; i < slot->r * slot->in; ++i) {
        slot->a[i] = (2.0f * rng.NextFloat() - 1.0f) * bound;
      }
    }
  }
  return adapter;
}

Status MergeLora(Model& model, const LoraAdapter& adapter) {
  if (adapter.num_layers() != model.config().num_layers()) {
    return InvalidArgument(fmt::format("the adapter is for {} layers, the model has {}",
                                       adapter.num_layers(), model.config().num_layers()));
  }
  EW_RETURN_IF_ERROR(model.MakeTrainable());
  for (int64_t layer = 0; layer < adapter.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LoraSlot* s = adapter.slot(layer, kind);
      if (s == nullptr) continue;
      float* w = model.MutableData({WeightRole::kLinear, layer, kind});
      std::vector<double> row(static_cast<size_t>(s->in));
      for (int64_t o = 0; o < s->out; ++o) {
        std::fill(row.begin(), row.end(), 0.0);
        for (int64_t r = 0; r < s->r; ++r) {
          const double b = static_cast<double>(s->scale) * s->b[o * s->r + r];
          for (int64_t i = 0; i < s->in; ++i)
            row[static_cast<size_t>(i)] += b * s->a[r * s->in + i];
        }
        for (int64_t i = 0; i < s->in; ++i) {
          w[o * s->in + i] = static_cast<float>(w[o * s->in + i] + row[static_cast<size_t>(i)]);
        }
      }
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::model
