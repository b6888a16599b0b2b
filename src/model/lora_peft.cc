// Adapters to and from PEFT directories.
#include <fmt/format.h>

#include <map>

#include "formats/peft.h"
#include "formats/tensor_source.h"
#include "io/env.h"
#include "model/lora.h"
#include "model/weight_table.h"
#include "tensor/dtype.h"

namespace edgewise::model {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Status CheckShape(const std::string& module, const char* which, const TensorView& tensor,
                  std::vector<int64_t> wanted) {
  if (tensor.shape == wanted && IsFloatDType(tensor.dtype)) return Status::Ok();
  return BadInput(fmt::format("{} of {} is {} {}, but this model needs floats {}", which, module,
                              DTypeName(tensor.dtype), ShapeText(tensor.shape), ShapeText(wanted)));
}

// The model's linears by module path.
std::map<std::string, WeightId, std::less<>> LinearsByPath(const ModelConfig& config) {
  std::map<std::string, WeightId, std::less<>> linears;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      linears.emplace(LinearPath(layer, kind), WeightId{WeightRole::kLinear, layer, kind});
    }
  }
  return linears;
}

}  // namespace

std::string PeftTensorName(int64_t layer, LinearKind kind, bool b) {
  const std::string path = LinearPath(layer, kind);
  return b ? formats::LoraBTensorName(path) : formats::LoraATensorName(path);
}

Result<LoraAdapter> LoadPeftAdapter(const std::string& dir, const ModelConfig& config) {
  EW_ASSIGN(const formats::PeftAdapter peft, formats::ReadPeftAdapter(dir));
  if (!peft.saved.empty() || !peft.config.modules_to_save.empty()) {
    return Unsupported(fmt::format(
        "{}: modules_to_save ({}) is not supported: only low-rank "
        "adapters on linear layers are",
        dir, peft.saved.empty() ? peft.config.modules_to_save.front() : peft.saved.begin()->first));
  }
  if (peft.config.bias != "none") {
    return Unsupported(
        fmt::format("{}: an adapter with bias '{}' is not supported", dir, peft.config.bias));
  }
  EW_ASSIGN(const formats::LoraMatcher matcher,
            formats::LoraMatcher::Create(peft.config).WithContext(dir));

  struct Found {
    int64_t layer;
    LinearKind kind;
    const formats::LoraPair* pair;
  };
  const auto linears = LinearsByPath(config);
  std::vector<Found> found;
  LoraAdapter::Slots slots(config.layers.size());
  for (const auto& [module, pair] : peft.pairs) {
    const auto linear = linears.find(module);
    if (pair.embedding || linear == linears.end()) {
      return Unsupported(
          fmt::format("{}: {} has an adapter, but is not a linear layer of this {}-layer {}", dir,
                      module, config.num_layers(), config.architecture));
    }
    const Found f{linear->second.layer, linear->second.kind, &pair};
    const LinearShape shape = ShapeOf(config, f.kind);
    const int64_t r = pair.a.view.shape.empty() ? 0 : pair.a.view.shape[0];
    if (r < 1) return BadInput(fmt::format("{}: the adapter of {} has rank {}", dir, module, r));
    EW_RETURN_IF_ERROR(CheckShape(module, "lora_A", pair.a.view, {r, shape.in}).WithContext(dir));
    EW_RETURN_IF_ERROR(CheckShape(module, "lora_B", pair.b.view, {shape.out, r}).WithContext(dir));
    slots[static_cast<size_t>(f.layer)][static_cast<size_t>(f.kind)] = {
        r,       shape.in, shape.out, static_cast<float>(matcher.SlotFor(module).scaling),
        nullptr, nullptr};
    found.push_back(f);
  }
  if (found.empty()) return BadInput(fmt::format("{}: the adapter holds no tensors", dir));
  EW_ASSIGN(LoraAdapter adapter, LoraAdapter::WithSlots(peft.config, std::move(slots)));
  for (const Found& f : found) {
    const LoraSlot* slot = adapter.slot(f.layer, f.kind);
    ConvertToF32(f.pair->a.view.dtype, f.pair->a.view.data, slot->a, slot->r * slot->in);
    ConvertToF32(f.pair->b.view.dtype, f.pair->b.view.data, slot->b, slot->out * slot->r);
  }
  return adapter;
}

Status SavePeftAdapter(const std::string& dir, const LoraAdapter& adapter,
                       const std::string& base_model) {
  formats::PeftAdapter peft;
  peft.config = adapter.lora_config();
  peft.config.base_model_name_or_path = base_model;
  if (peft.config.targets == LoraConfig::Targets::kAllLinear) {
    // PEFT writes the names that "all-linear" stood for.
    peft.config.targets = LoraConfig::Targets::kList;
    peft.config.target_modules.clear();
    for (LinearKind kind : kAllLinears) {
      bool present = false;
      for (int64_t layer = 0; layer < adapter.num_layers(); ++layer) {
        present = present || adapter.slot(layer, kind) != nullptr;
      }
      if (present) peft.config.target_modules.emplace_back(LinearName(kind));
    }
  }
  for (int64_t layer = 0; layer < adapter.num_layers(); ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LoraSlot* s = adapter.slot(layer, kind);
      if (s == nullptr) continue;
      formats::LoraPair pair;
      pair.a = formats::MakeFloatTensor({s->r, s->in}, s->a);
      pair.b = formats::MakeFloatTensor({s->out, s->r}, s->b);
      peft.pairs.emplace(LinearPath(layer, kind), std::move(pair));
    }
  }
  return formats::WritePeftAdapter(PosixEnv(), dir, peft);
}

}  // namespace edgewise::model
