// LoRA adapters in the layout of Hugging Face PEFT: adapter_config.json and
// adapter_model.safetensors.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "io/env.h"
#include "tensor/tensor.h"

namespace edgewise::formats {

struct LoraConfig {
  // Which linear layers: a list of module names or suffixes ("q_proj"), a regular expression over
  // the full module name, or all linear layers but the output head.
  enum class Targets { kList, kRegex, kAllLinear };

  int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  bool use_rslora = false;  // scale alpha / sqrt(r) instead of alpha / r
  Targets targets = Targets::kList;
  std::vector<std::string> target_modules;
  std::string target_regex;
  // Regular expressions over module names, first match in file order wins.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::optional<std::vector<int64_t>> layers_to_transform;
  std::vector<std::string> layers_pattern;  // empty: any
  std::vector<std::string> exclude_modules;
  std::string exclude_regex;  // when exclude_modules is a string in the file
  std::vector<std::string> modules_to_save;
  std::string bias = "none";  // "none", "all", "lora_only"
  std::string base_model_name_or_path;
  std::string task_type = "CAUSAL_LM";
};

// Refuses, by name, every key whose value changes the computation in a way that plain LoRA cannot
// follow (DoRA, aLoRA, QA-LoRA, LoftQ, MoE routing, ...), including unknown keys with a value that
// is not a default-like one; keys that change nothing are ignored.
Result<LoraConfig> ParseLoraConfig(std::string_view json);
// Indent 2, sorted keys, every key that PEFT itself writes.
std::string FormatLoraConfig(const LoraConfig& config);

// What a config says about each module; regular expressions compiled once.
class LoraMatcher {
 public:
  // Error: a pattern that is not a valid regular expression, or a pattern that costs too much.
  static Result<LoraMatcher> Create(const LoraConfig& config);

  struct Slot {
    int64_t r = 0;
    double alpha = 0;
    double scaling = 0;  // alpha / r or alpha / sqrt(r)
  };
  // `module` is the full name inside the base model, for example
  // "model.layers.0.self_attn.q_proj". Nothing when the module is not targeted. Ask for linear (or
  // embedding) modules only: all-linear cannot tell a norm from a linear.
  std::optional<Slot> Match(std::string_view module) const;
  // Rank and scale the module has when it is targeted, targeted or not.
  Slot SlotFor(std::string_view module) const;

 private:
  struct Patterns;
  LoraMatcher() = default;
  bool Targeted(std::string_view module) const;

  LoraConfig config_;
  std::shared_ptr<const Patterns> patterns_;
};

struct LoraPair {
  HostTensor a;  // [r, in]  (embedding: [r, vocabulary])
  HostTensor b;  // [out, r] (embedding: [hidden, r])
  bool embedding = false;
};

struct PeftAdapter {
  LoraConfig config;
  std::map<std::string, LoraPair, std::less<>> pairs;    // by full module name in the base model
  std::map<std::string, HostTensor, std::less<>> saved;  // modules_to_save, by parameter name
};

// Reads DIRECTORY/adapter_config.json and DIRECTORY/adapter_model.safetensors. Errors: half a pair,
// a rank that differs from the config's, shapes that do not fit together, unknown tensor names.
Result<PeftAdapter> ReadPeftAdapter(const std::string& directory);
// Both files, each atomically, the config last; the directory is created when absent.
Status WritePeftAdapter(Env& env, const std::string& directory, const PeftAdapter& adapter);

// Tensor names as in adapter_model.safetensors.
std::string LoraATensorName(std::string_view module, bool embedding = false);
std::string LoraBTensorName(std::string_view module, bool embedding = false);

}  // namespace edgewise::formats
