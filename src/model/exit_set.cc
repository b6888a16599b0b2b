#include "model/exit_set.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/rng.h"
#include "formats/safetensors.h"
#include "io/env.h"
#include "io/json.h"
#include "tensor/dtype.h"

namespace edgewise::model {
namespace {

constexpr const char* kRunFile = "edgewise.json";

Status Missing(const std::string& path, const char* what) {
  return BadInput(
      fmt::format("{}: {}; this is not a finished run of adaptive layer tuning", path, what));
}

// The float tensor `name` of the wanted shape; empty when it is absent.
Result<FloatBuffer> ReadTensor(const formats::TensorSource& source, const std::string& name,
                               const std::vector<int64_t>& shape) {
  if (!source.Has(name)) return FloatBuffer();
  EW_ASSIGN(const HostTensor tensor, source.Get(name));
  if (tensor.view.shape != shape || !IsFloatDType(tensor.view.dtype)) {
    return BadInput(fmt::format("{} is {} [{}], expected floats [{}]", name,
                                DTypeName(tensor.view.dtype), fmt::join(tensor.view.shape, ", "),
                                fmt::join(shape, ", ")));
  }
  FloatBuffer values(tensor.view.elements());
  ConvertToF32(tensor.view.dtype, tensor.view.data, values.data(), values.size());
  source.Drop(name);
  return values;
}

Status FillAdapter(const formats::TensorSource& source, const std::string& prefix,
                   LoraAdapter& adapter, LayerRange layers) {
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    for (LinearKind kind : kAllLinears) {
      const LoraSlot* s = adapter.slot(layer, kind);
      if (s == nullptr) continue;
      for (bool b : {false, true}) {
        const std::string name = prefix + PeftTensorName(layer, kind, b);
        const std::vector<int64_t> shape = b ? std::vector{s->out, s->r} : std::vector{s->r, s->in};
        EW_ASSIGN(const FloatBuffer values, ReadTensor(source, name, shape));
        if (values.empty()) return BadInput(fmt::format("tensor {} is missing", name));
        std::copy_n(values.data(), values.size(), b ? s->b : s->a);
      }
    }
  }
  return Status::Ok();
}

Status FillHead(const formats::TensorSource& source, const std::string& prefix,
                const ModelConfig& c, int64_t rank, TunedExit* exit) {
  EW_ASSIGN(exit->norm, ReadTensor(source, prefix + "norm.weight", {c.hidden}));
  EW_ASSIGN(exit->head, ReadTensor(source, prefix + "lm_head.weight", {c.vocab, c.hidden}));
  if (!exit->head.empty()) {
    exit->head_ref = kernels::WeightRef::Dense(exit->head.data(), c.vocab, c.hidden);
  }
  if (rank < 1) return Status::Ok();
  EW_ASSIGN(exit->head_lora_a,
            ReadTensor(source, prefix + "lm_head.lora_A.weight", {rank, c.hidden}));
  EW_ASSIGN(exit->head_lora_b,
            ReadTensor(source, prefix + "lm_head.lora_B.weight", {c.vocab, rank}));
  if (exit->head_lora_a.empty() != exit->head_lora_b.empty()) {
    return BadInput(prefix + "lm_head has only one of its two LoRA factors");
  }
  if (!exit->head_lora_a.empty()) exit->head_lora_rank = rank;
  return Status::Ok();
}

// The options of the run; null when the file is not one of adaptive layer tuning.
const Json* MethodOptions(const Json& run) {
  if (!run.is_object() || run.value("method", "") != "edge") return nullptr;
  const auto options = run.find("options");
  if (options == run.end() || !options->is_object()) return nullptr;
  const auto method = options->find("method_options");
  return method == options->end() || !method->is_object() ? nullptr : &*method;
}

// Error: not a number of bits that passes take.
Result<int> ActivationBits(const Json& options, const std::string& path) {
  const auto found = options.find("activation_bits");
  if (found == options.end()) return 0;
  if (!found->is_number_integer() || *found < 2 || *found > 16) {
    return BadInput(fmt::format("{}: activations of {} bits", path, found->dump()));
  }
  return found->get<int>();
}

}  // namespace

Result<int> TunedActivationBits(const std::string& run_dir) {
  const std::string path = JoinPath(run_dir, kRunFile);
  if (!PosixEnv().Exists(path)) return 0;
  EW_ASSIGN(const Json run, ReadJsonFile(path));
  const Json* options = MethodOptions(run);
  return options == nullptr ? 0 : ActivationBits(*options, path);
}

ExitHead TunedExit::Head() const {
  ExitHead h;
  if (!norm.empty()) h.norm = norm.data();
  if (head_lora_rank > 0) {
    h.lora_r = head_lora_rank;
    h.lora_scale = head_lora_scale;
    h.lora_a = head_lora_a.data();
    h.lora_b = head_lora_b.data();
  }
  if (!head.empty()) h.head = &head_ref;
  return h;
}

LoraSlot TunedExit::HeadSlot() const {
  LoraSlot slot;
  if (head_lora_rank == 0) return slot;
  slot.r = head_lora_rank;
  slot.in = head_lora_a.size() / head_lora_rank;
  slot.out = head_lora_b.size() / head_lora_rank;
  slot.scale = head_lora_scale;
  // A slot is written through in training only.
  slot.a = const_cast<float*>(head_lora_a.data());
  slot.b = const_cast<float*>(head_lora_b.data());
  return slot;
}

bool ExitSet::Exists(const std::string& run_dir) {
  return PosixEnv().Exists(JoinPath(run_dir, kExitTensors)) &&
         PosixEnv().Exists(JoinPath(run_dir, kRunFile));
}

int64_t ExitSet::trunk_end() const {
  int64_t end = 0;
  for (const ExitStream& s : streams_) end = std::max(end, s.layers.begin);
  return end;
}

Result<ExitSet> ExitSet::Load(const std::string& run_dir, const ModelConfig& config) {
  const std::string run_path = JoinPath(run_dir, kRunFile);
  EW_ASSIGN(const Json run, ReadJsonFile(run_path));
  const Json* options = MethodOptions(run);
  if (options == nullptr) return Missing(run_path, "there are no options of method edge");
  ExitSet set;
  EW_ASSIGN(set.activation_bits_, ActivationBits(*options, run_path));
  try {
    set.frozen_ = options->at("trunk").get<std::string>() == "frozen";
    const auto rank = options->value("head_lora_rank", int64_t{0});
    const double alpha = options->value("head_lora_alpha", 2.0 * static_cast<double>(rank));
    const std::string path = JoinPath(run_dir, kExitTensors);
    EW_ASSIGN(const auto source, formats::SafetensorsFile::Open(path));
    if (!set.frozen_) {
      EW_ASSIGN(LoraAdapter adapter, LoadPeftAdapter(run_dir, config));
      set.adapters_.push_back(std::make_unique<LoraAdapter>(std::move(adapter)));
      set.streams_.push_back({{0, 0}, set.adapters_[0].get()});
    }
    int index = 0;
    for (const Json& e : options->at("exits")) {
      const LayerRange window{e.at("begin").get<int64_t>(), e.at("end").get<int64_t>()};
      if (window.begin < 0 || window.begin >= window.end || window.end > config.num_layers()) {
        return BadInput(fmt::format("{}: exit {} has the layers [{}, {}) of {}", run_path, index,
                                    window.begin, window.end, config.num_layers()));
      }
      const std::string prefix = fmt::format("exit.{}.", index++);
      TunedExit exit;
      exit.end = window.end;
      if (set.frozen_) {
        EW_ASSIGN(LoraConfig lora, formats::ParseLoraConfig(options->at("lora").dump()));
        lora.layers_to_transform.emplace();
        for (int64_t l = window.begin; l < window.end; ++l) lora.layers_to_transform->push_back(l);
        EW_ASSIGN(LoraAdapter adapter, LoraAdapter::Create(config, lora, 0));
        EW_RETURN_IF_ERROR(FillAdapter(*source, prefix, adapter, window).WithContext(path));
        set.adapters_.push_back(std::make_unique<LoraAdapter>(std::move(adapter)));
        exit.stream = static_cast<int>(set.streams_.size());
        set.streams_.push_back({window, set.adapters_.back().get()});
      } else {
        // Windows that reach the same layer are one exit.
        if (!set.exits_.empty() && set.exits_.back().end == window.end) continue;
        set.streams_[0].layers.end = std::max(set.streams_[0].layers.end, window.end);
      }
      EW_RETURN_IF_ERROR(FillHead(*source, prefix, config, rank, &exit).WithContext(path));
      if (rank > 0) {
        exit.head_lora_scale = static_cast<float>(alpha / static_cast<double>(rank));
      }
      set.exits_.push_back(std::move(exit));
    }
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("{}: {}", run_path, e.what()));
  }
  if (set.exits_.empty()) return Missing(run_path, "it lists no exits");
  return set;
}

Result<ExitSet> ExitSet::Random(const ModelConfig& config, int64_t exits, int64_t rank,
                                uint64_t seed) {
  const int64_t layers = config.num_layers();
  if (exits < 1 || exits > layers) {
    return InvalidArgument(fmt::format("{} exits for a model of {} layers", exits, layers));
  }
  ExitSet set;
  for (int64_t k = 0; k < exits; ++k) {
    const LayerRange window{k * layers / exits, (k + 1) * layers / exits};
    LoraConfig lora;
    lora.r = rank;
    lora.lora_alpha = 2.0 * static_cast<double>(rank);
    lora.targets = LoraConfig::Targets::kAllLinear;
    lora.layers_to_transform.emplace();
    for (int64_t l = window.begin; l < window.end; ++l) lora.layers_to_transform->push_back(l);
    EW_ASSIGN(LoraAdapter adapter,
              LoraAdapter::Create(config, lora, seed + static_cast<uint64_t>(k)));
    Rng rng(seed, RngStream::kTest, static_cast<uint64_t>(k));
    for (float& v : adapter.values().span()) {
      v = static_cast<float>((2 * rng.NextDouble() - 1) * 0.05);
    }
    set.adapters_.push_back(std::make_unique<LoraAdapter>(std::move(adapter)));
    TunedExit exit;
    exit.stream = static_cast<int>(k);
    exit.end = window.end;
    set.streams_.push_back({window, set.adapters_.back().get()});
    set.exits_.push_back(std::move(exit));
  }
  return set;
}

}  // namespace edgewise::model
