#include "formats/peft.h"

#include <fmt/format.h>

#include "formats/printable.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"

namespace edgewise::formats {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr char kConfigFile[] = "adapter_config.json";
constexpr char kTensorFile[] = "adapter_model.safetensors";

struct Part {
  std::string_view module;
  bool is_a = false;
  bool embedding = false;
};

// What a tensor name (without the prefix) stands for; nothing when it is no half of a pair.
std::optional<Part> SplitName(std::string_view name) {
  struct Ending {
    std::string_view text;
    bool is_a, embedding;
  };
  for (const Ending& ending : {Ending{".lora_A.weight", true, false},
                               {".lora_B.weight", false, false},
                               {".lora_embedding_A", true, true},
                               {".lora_embedding_B", false, true}}) {
    if (name.size() > ending.text.size() &&
        name.substr(name.size() - ending.text.size()) == ending.text) {
      name.remove_suffix(ending.text.size());
      return Part{name, ending.is_a, ending.embedding};
    }
  }
  return std::nullopt;
}

Status CheckPair(const std::string& module, const LoraPair& pair, const LoraMatcher& matcher) {
  const std::string what = fmt::format("module {}", Printable(module));
  if (pair.a.view.data == nullptr || pair.b.view.data == nullptr) {
    return BadInput(
        fmt::format("{}: lora_{} is missing", what, pair.a.view.data == nullptr ? "A" : "B"));
  }
  for (const HostTensor* half : {&pair.a, &pair.b}) {
    if (!IsFloatDType(half->view.dtype) || half->view.shape.size() != 2) {
      return BadInput(fmt::format("{}: {} {} is no matrix of floats", what,
                                  DTypeName(half->view.dtype), ShapeText(half->view.shape)));
    }
  }
  const int64_t rank = pair.a.view.shape[0];
  const int64_t expected = matcher.SlotFor(module).r;
  if (rank != expected || pair.b.view.shape[1] != expected) {
    return BadInput(fmt::format(
        "{}: lora_A {} and lora_B {} do not have the rank {} that {} gives them", what,
        ShapeText(pair.a.view.shape), ShapeText(pair.b.view.shape), expected, kConfigFile));
  }
  return Status::Ok();
}

// Whether a parameter is one of a module that the config says is saved whole.
bool IsSavedModule(std::string_view parameter, const LoraConfig& config) {
  const size_t dot = parameter.rfind('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view module = parameter.substr(0, dot);
  for (const std::string& name : config.modules_to_save) {
    if (module == name) return true;
    if (module.size() > name.size() && module[module.size() - name.size() - 1] == '.' &&
        module.substr(module.size() - name.size()) == name) {
      return true;
    }
  }
  return false;
}

Status ReadTensors(const SafetensorsFile& file, PeftAdapter& adapter) {
  for (const SafetensorsEntry& entry : file.entries()) {
    EW_ASSIGN(HostTensor tensor, file.Get(entry.name));
    std::string_view name = entry.name;
    if (name.substr(0, kPrefix.size()) != kPrefix) {
      return BadInput(fmt::format("tensor {} does not begin with \"{}\": not a PEFT adapter?",
                                  Printable(name), kPrefix));
    }
    name.remove_prefix(kPrefix.size());
    if (const std::optional<Part> part = SplitName(name)) {
      LoraPair& pair = adapter.pairs[std::string(part->module)];
      HostTensor& half = part->is_a ? pair.a : pair.b;
      if (half.view.data != nullptr ||
          (pair.embedding != part->embedding &&
           (pair.a.view.data != nullptr || pair.b.view.data != nullptr))) {
        return BadInput(fmt::format("module {} has both linear and embedding LoRA tensors",
                                    Printable(part->module)));
      }
      pair.embedding = part->embedding;
      half = std::move(tensor);
    } else if (IsSavedModule(name, adapter.config)) {
      adapter.saved.emplace(name, std::move(tensor));
    } else {
      return Unsupported(
          fmt::format("tensor {} is neither half of a LoRA pair nor part of \"modules_to_save\"",
                      Printable(entry.name)));
    }
  }
  return Status::Ok();
}

}  // namespace

std::string LoraATensorName(std::string_view module, bool embedding) {
  return fmt::format("{}{}{}", kPrefix, module, embedding ? ".lora_embedding_A" : ".lora_A.weight");
}

std::string LoraBTensorName(std::string_view module, bool embedding) {
  return fmt::format("{}{}{}", kPrefix, module, embedding ? ".lora_embedding_B" : ".lora_B.weight");
}

Result<PeftAdapter> ReadPeftAdapter(const std::string& directory) {
  Env& env = PosixEnv();
  const std::string config_path = JoinPath(directory, kConfigFile);
  const std::string tensor_path = JoinPath(directory, kTensorFile);
  EW_ASSIGN(const std::string text, env.ReadFile(config_path, int64_t{1} << 20));
  PeftAdapter adapter;
  EW_ASSIGN(adapter.config, ParseLoraConfig(text).WithContext(config_path));
  EW_ASSIGN(const LoraMatcher matcher,
            LoraMatcher::Create(adapter.config).WithContext(config_path));
  if (!env.Exists(tensor_path) && env.Exists(JoinPath(directory, "adapter_model.bin"))) {
    return Unsupported(fmt::format(
        "{} holds its tensors as adapter_model.bin, a Python pickle, which can run code when read; "
        "save the adapter again with PEFT's save_pretrained(safe_serialization=True)",
        directory));
  }
  EW_ASSIGN(const auto file, SafetensorsFile::Open(tensor_path));
  EW_RETURN_IF_ERROR(ReadTensors(*file, adapter).WithContext(tensor_path));
  for (const auto& [module, pair] : adapter.pairs) {
    EW_RETURN_IF_ERROR(CheckPair(module, pair, matcher).WithContext(tensor_path));
  }
  return adapter;
}

Status WritePeftAdapter(Env& env, const std::string& directory, const PeftAdapter& adapter) {
  EW_ASSIGN(const LoraMatcher matcher, LoraMatcher::Create(adapter.config));
  SafetensorsWriter writer;
  for (const auto& [module, pair] : adapter.pairs) {
    EW_RETURN_IF_ERROR(CheckPair(module, pair, matcher));
    EW_RETURN_IF_ERROR(writer.Add(LoraATensorName(module, pair.embedding), pair.a));
    EW_RETURN_IF_ERROR(writer.Add(LoraBTensorName(module, pair.embedding), pair.b));
  }
  for (const auto& [name, tensor] : adapter.saved) {
    EW_RETURN_IF_ERROR(writer.Add(fmt::format("{}{}", kPrefix, name), tensor));
  }
  EW_RETURN_IF_ERROR(CreateDirsSynced(env, directory));
  EW_RETURN_IF_ERROR(writer.Write(env, JoinPath(directory, kTensorFile)));
  return WriteFileAtomic(env, JoinPath(directory, kConfigFile), FormatLoraConfig(adapter.config));
}

}  // namespace edgewise::formats
