// Which modules a LoRA config means. The rules are PEFT's.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "formats/pattern.h"
#include "formats/peft.h"

namespace edgewise::formats {
namespace {

// "q_proj" means every module of that name; "self_attn.q_proj" and full names work too.
bool HasSuffix(std::string_view module, std::string_view name) {
  if (module == name) return true;
  return module.size() > name.size() + 1 && module[module.size() - name.size() - 1] == '.' &&
         module.substr(module.size() - name.size()) == name;
}

bool HasAnySuffix(std::string_view module, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return HasSuffix(module, name); });
}

}  // namespace

struct LoraMatcher::Patterns {
  std::optional<Pattern> target;
  std::optional<Pattern> exclude;
  std::vector<Pattern> layer_number;  // the number is the first group
  std::vector<std::pair<Pattern, int64_t>> rank;
  std::vector<std::pair<Pattern, double>> alpha;
};

Result<LoraMatcher> LoraMatcher::Create(const LoraConfig& config) {
  const auto patterns = std::make_shared<Patterns>();
  const auto whole = [](const std::string& text) {
    return Pattern::Compile("(?:" + text + ")\\z");
  };
  // A key may leave out the path in front of it.
  const auto tail = [](const std::string& text) {
    return Pattern::Compile("(?:.*\\.)?(?:" + text + ")$");
  };
  if (config.targets == LoraConfig::Targets::kRegex) {
    EW_ASSIGN(patterns->target, whole(config.target_regex).WithContext("target_modules"));
  }
  if (!config.exclude_regex.empty()) {
    EW_ASSIGN(patterns->exclude, whole(config.exclude_regex).WithContext("exclude_modules"));
  }
  if (config.layers_to_transform) {
    if (config.layers_pattern.empty()) {
      EW_ASSIGN(Pattern any, Pattern::Compile(".*\\.[^.]*\\.(\\d+)\\."));
      patterns->layer_number.push_back(std::move(any));
    }
    for (const std::string& name : config.layers_pattern) {
      EW_ASSIGN(
          Pattern layer,
          Pattern::Compile(".*\\.(?:" + name + ")\\.(\\d+)\\.").WithContext("layers_pattern"));
      patterns->layer_number.push_back(std::move(layer));
    }
  }
  for (const auto& [key, rank] : config.rank_pattern) {
    EW_ASSIGN(Pattern pattern, tail(key).WithContext("rank_pattern"));
    patterns->rank.emplace_back(std::move(pattern), rank);
  }
  for (const auto& [key, alpha] : config.alpha_pattern) {
    EW_ASSIGN(Pattern pattern, tail(key).WithContext("alpha_pattern"));
    patterns->alpha.emplace_back(std::move(pattern), alpha);
  }
  LoraMatcher matcher;
  matcher.config_ = config;
  matcher.patterns_ = patterns;
  return matcher;
}

bool LoraMatcher::Targeted(std::string_view module) const {
  if (patterns_->exclude && patterns_->exclude->MatchesStart(module)) return false;
  if (HasAnySuffix(module, config_.exclude_modules)) return false;
  switch (config_.targets) {
    case LoraConfig::Targets::kRegex:
      return patterns_->target->MatchesStart(module);
    case LoraConfig::Targets::kAllLinear:
      if (HasSuffix(module, "lm_head")) return false;
      break;
    case LoraConfig::Targets::kList:
      // A full name is meant as it is, whatever its layer.
      if (std::find(config_.target_modules.begin(), config_.target_modules.end(), module) !=
          config_.target_modules.end()) {
        return true;
      }
      if (!HasAnySuffix(module, config_.target_modules)) return false;
      break;
  }
  if (!config_.layers_to_transform) return true;
  std::string digits;
  for (const Pattern& pattern : patterns_->layer_number) {
    if (!pattern.FirstGroup(module, digits)) continue;
    int64_t layer = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
    if (error != std::errc() || end != digits.data() + digits.size()) return false;
    return std::find(config_.layers_to_transform->begin(), config_.layers_to_transform->end(),
                     layer) != config_.layers_to_transform->end();
  }
  return false;
}

LoraMatcher::Slot LoraMatcher::SlotFor(std::string_view module) const {
  Slot slot{config_.r, config_.lora_alpha, 0};
  for (const auto& [pattern, rank] : patterns_->rank) {
    if (!pattern.MatchesStart(module)) continue;
    slot.r = rank;
    break;
  }
  for (const auto& [pattern, alpha] : patterns_->alpha) {
    if (!pattern.MatchesStart(module)) continue;
    slot.alpha = alpha;
    break;
  }
  const auto rank = static_cast<double>(slot.r);
  slot.scaling = slot.alpha / (config_.use_rslora ? std::sqrt(rank) : rank);
  return slot;
}

std::optional<LoraMatcher::Slot> LoraMatcher::Match(std::string_view module) const {
  if (!Targeted(module)) return std::nullopt;
  return SlotFor(module);
}

}  // namespace edgewise::formats
