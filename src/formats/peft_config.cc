#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "formats/peft.h"
#include "formats/printable.h"
#include "io/json.h"

namespace edgewise::formats {
namespace {

constexpr int64_t kMaxRank = 1 << 16;

// Keys whose only value that plain LoRA can follow is null, false, "" or empty.
constexpr std::string_view kMustBeOff[] = {"alora_invocation_tokens",
                                           "arrow_config",
                                           "corda_config",
                                           "eva_config",
                                           "fan_in_fan_out",
                                           "kasa_config",
                                           "layer_replication",
                                           "lora_bias",
                                           "lora_ga_config",
                                           "monteclora_config",
                                           "target_parameters",
                                           "trainable_token_indices",
                                           "use_bdlora",
                                           "use_dora",
                                           "use_qalora",
                                           "velora_config"};
// Keys that change nothing once the adapter is trained, or that matter only together with one of
// the above.
constexpr std::string_view kHarmless[] = {"auto_mapping",        "base_model_name_or_path",
                                          "ensure_weight_tying", "inference_mode",
                                          "init_lora_weights",   "loftq_config",
                                          "megatron_config",     "megatron_core",
                                          "peft_type",           "peft_version",
                                          "qalora_group_size",   "revision",
                                          "runtime_config",      "task_type"};
constexpr std::string_view kUnderstood[] = {"alpha_pattern",
                                            "bias",
                                            "exclude_modules",
                                            "layers_pattern",
                                            "layers_to_transform",
                                            "lora_alpha",
                                            "lora_dropout",
                                            "modules_to_save",
                                            "r",
                                            "rank_pattern",
                                            "target_modules",
                                            "use_rslora"};

template <size_t N>
bool IsIn(const std::string_view (&list)[N], std::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

bool IsOff(const OrderedJson& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  return (value.is_string() || value.is_array() || value.is_object()) &&
         (value.empty() || (value.is_string() && value.get_ref<const std::string&>().empty()));
}

Status Bad(std::string_view key, std::string_view wanted, const OrderedJson& found) {
  return BadInput(
      fmt::format("\"{}\" must be {}, but is {}", key, wanted, Printable(DumpJson(found))));
}

const OrderedJson* Find(const OrderedJson& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

Status ReadString(const OrderedJson& json, const char* key, std::string& out) {
  const OrderedJson* value = Find(json, key);
  if (value == nullptr) return Status::Ok();
  if (!value->is_string()) return Bad(key, "a string", *value);
  out = value->get<std::string>();
  return Status::Ok();
}

Status ReadBool(const OrderedJson& json, const char* key, bool& out) {
  const OrderedJson* value = Find(json, key);
  if (value == nullptr) return Status::Ok();
  if (!value->is_boolean()) return Bad(key, "true or false", *value);
  out = value->get<bool>();
  return Status::Ok();
}

Result<int64_t> ToRank(std::string_view key, const OrderedJson& value) {
  if (!value.is_number_integer() || value < 1 || value > kMaxRank) {
    return Bad(key, fmt::format("an integer from 1 to {}", kMaxRank), value);
  }
  return value.get<int64_t>();
}

Result<double> ToNumber(std::string_view key, const OrderedJson& value, double low, double high) {
  if (!value.is_number() || !(value.get<double>() >= low) || !(value.get<double>() <= high)) {
    return Bad(key, fmt::format("a number from {} to {}", low, high), value);
  }
  return value.get<double>();
}

Status ReadStrings(const OrderedJson& json, const char* key, std::vector<std::string>& out) {
  const OrderedJson* value = Find(json, key);
  if (value == nullptr) return Status::Ok();
  if (!value->is_array()) return Bad(key, "a list of strings", *value);
  for (const OrderedJson& item : *value) {
    if (!item.is_string()) return Bad(key, "a list of strings", *value);
    out.push_back(item.get<std::string>());
  }
  return Status::Ok();
}

// A list of names, or one string that is a regular expression.
Status ReadNamesOrRegex(const OrderedJson& json, const char* key, std::vector<std::string>& names,
                        std::string& regex) {
  const OrderedJson* value = Find(json, key);
  if (value != nullptr && value->is_string()) return ReadString(json, key, regex);
  return ReadStrings(json, key, names);
}

Status ReadLayers(const OrderedJson& json, LoraConfig& config) {
  if (const OrderedJson* value = Find(json, "layers_to_transform"); value != nullptr) {
    const OrderedJson list = value->is_array() ? *value : OrderedJson::array({*value});
    std::vector<int64_t> layers;
    for (const OrderedJson& item : list) {
      if (!item.is_number_integer() || item < 0 || item > 100000) {
        return Bad("layers_to_transform", "a layer number or a list of them", *value);
      }
      layers.push_back(item.get<int64_t>());
    }
    if (!layers.empty()) config.layers_to_transform = std::move(layers);
  }
  if (const OrderedJson* value = Find(json, "layers_pattern");
      value != nullptr && value->is_string()) {
    std::string pattern;
    EW_RETURN_IF_ERROR(ReadString(json, "layers_pattern", pattern));
    if (!pattern.empty()) config.layers_pattern.push_back(std::move(pattern));
    return Status::Ok();
  }
  return ReadStrings(json, "layers_pattern", config.layers_pattern);
}

Status ReadPatterns(const OrderedJson& json, LoraConfig& config) {
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    const OrderedJson* value = Find(json, key);
    if (value == nullptr) continue;
    if (!value->is_object()) return Bad(key, "an object", *value);
    for (const auto& [pattern, number] : value->items()) {
      const std::string where = fmt::format("{}[{}]", key, Printable(pattern));
      if (std::string_view(key) == "rank_pattern") {
        EW_ASSIGN(const int64_t rank, ToRank(where, number));
        config.rank_pattern.emplace_back(pattern, rank);
      } else {
        EW_ASSIGN(const double alpha, ToNumber(where, number, 0, 1e9));
        config.alpha_pattern.emplace_back(pattern, alpha);
      }
    }
  }
  return Status::Ok();
}

Status CheckKeys(const OrderedJson& json) {
  for (const auto& [key, value] : json.items()) {
    if (IsIn(kUnderstood, key) || IsIn(kHarmless, key) || IsOff(value)) continue;
    if (IsIn(kMustBeOff, key)) {
      return Unsupported(fmt::format(
          "\"{}\": {} changes what the adapter computes in a way that edgewise does not implement; "
          "merge the adapter with the tool that made it, or train one without it",
          key, Printable(DumpJson(value))));
    }
    return Unsupported(fmt::format(
        "unknown key {} with the value {}: it may change what the adapter computes; remove it if "
        "it does not",
        Printable(key), Printable(DumpJson(value))));
  }
  // Initialisations that also change the base weights, which then differ from the published ones.
  if (const OrderedJson* init = Find(json, "init_lora_weights");
      init != nullptr && init->is_string()) {
    const std::string& name = init->get_ref<const std::string&>();
    for (const char* changes : {"pissa", "olora", "loftq", "corda", "lora_ga"}) {
      if (name.rfind(changes, 0) == 0) {
        return Unsupported(fmt::format(
            "\"init_lora_weights\": {} changes the base weights; convert the adapter with PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=...)",
            Printable(name)));
      }
    }
  }
  return Status::Ok();
}

Json OrNull(const std::vector<std::string>& list) { return list.empty() ? Json() : Json(list); }

// 16, not 16.0, as Python writes an int; other numbers as they are.
Json Number(double x) {
  const auto whole = static_cast<int64_t>(x);
  return static_cast<double>(whole) == x ? Json(whole) : Json(x);
}

}  // namespace

Result<LoraConfig> ParseLoraConfig(std::string_view text) {
  EW_ASSIGN(const Json checked, edgewise::ParseJson(text));  // size, depth, duplicate keys
  if (!checked.is_object()) return BadInput("an adapter config must be a JSON object");
  const OrderedJson json = OrderedJson::parse(text, nullptr, false);  // keeps the pattern order

  LoraConfig config;
  std::string type;
  EW_RETURN_IF_ERROR(ReadString(json, "peft_type", type));
  if (type != "LORA") {
    return Unsupported(
        fmt::format("\"peft_type\" is {}; only \"LORA\" is supported", Printable(type)));
  }
  EW_RETURN_IF_ERROR(CheckKeys(json));
  if (const OrderedJson* value = Find(json, "r")) {
    EW_ASSIGN(config.r, ToRank("r", *value));
  }
  if (const OrderedJson* value = Find(json, "lora_alpha")) {
    EW_ASSIGN(config.lora_alpha, ToNumber("lora_alpha", *value, 0, 1e9));
  }
  if (const OrderedJson* value = Find(json, "lora_dropout")) {
    EW_ASSIGN(config.lora_dropout, ToNumber("lora_dropout", *value, 0, 1));
  }
  EW_RETURN_IF_ERROR(ReadBool(json, "use_rslora", config.use_rslora));
  EW_RETURN_IF_ERROR(
      ReadNamesOrRegex(json, "target_modules", config.target_modules, config.target_regex));
  if (config.target_regex == "all-linear") {
    config.targets = LoraConfig::Targets::kAllLinear;
    config.target_regex.clear();
  } else if (!config.target_regex.empty()) {
    config.targets = LoraConfig::Targets::kRegex;
  } else if (config.target_modules.empty()) {
    return BadInput(
        "\"target_modules\" names no module; without it PEFT's default depends on the "
        "architecture, so write it out, for example [\"q_proj\", \"v_proj\"]");
  }
  EW_RETURN_IF_ERROR(
      ReadNamesOrRegex(json, "exclude_modules", config.exclude_modules, config.exclude_regex));
  EW_RETURN_IF_ERROR(ReadStrings(json, "modules_to_save", config.modules_to_save));
  EW_RETURN_IF_ERROR(ReadLayers(json, config));
  EW_RETURN_IF_ERROR(ReadPatterns(json, config));
  EW_RETURN_IF_ERROR(ReadString(json, "bias", config.bias));
  if (config.bias != "none") {
    return Unsupported(
        fmt::format("\"bias\": {} trains the biases of the base, which edgewise does "
                    "not implement; only \"none\" is supported",
                    Printable(config.bias)));
  }
  EW_RETURN_IF_ERROR(ReadString(json, "base_model_name_or_path", config.base_model_name_or_path));
  EW_RETURN_IF_ERROR(ReadString(json, "task_type", config.task_type));
  return config;
}

std::string FormatLoraConfig(const LoraConfig& config) {
  Json json = {
      {"alora_invocation_tokens", nullptr},
      {"arrow_config", nullptr},
      {"auto_mapping", nullptr},
      {"bias", config.bias},
      {"corda_config", nullptr},
      {"ensure_weight_tying", false},
      {"eva_config", nullptr},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"kasa_config", nullptr},
      {"layer_replication", nullptr},
      {"loftq_config", Json::object()},
      {"lora_bias", false},
      {"lora_dropout", config.lora_dropout},
      {"lora_ga_config", nullptr},
      {"megatron_config", nullptr},
      {"megatron_core", "megatron.core"},
      {"monteclora_config", nullptr},
      {"peft_type", "LORA"},
      {"peft_version", "0.21.2"},  // whose layout this is
      {"qalora_group_size", 16},
      {"r", config.r},
      {"revision", nullptr},
      {"target_parameters", nullptr},
      {"task_type", config.task_type},
      {"trainable_token_indices", nullptr},
      {"use_bdlora", nullptr},
      {"use_dora", false},
      {"use_qalora", false},
      {"use_rslora", config.use_rslora},
      {"velora_config", nullptr},
  };
  json["lora_alpha"] = Number(config.lora_alpha);
  json["base_model_name_or_path"] =
      config.base_model_name_or_path.empty() ? Json() : Json(config.base_model_name_or_path);
  switch (config.targets) {
    case LoraConfig::Targets::kList: {
      std::vector<std::string> names = config.target_modules;
      std::sort(names.begin(), names.end());
      json["target_modules"] = names;
      break;
    }
    case LoraConfig::Targets::kRegex:
      json["target_modules"] = config.target_regex;
      break;
    case LoraConfig::Targets::kAllLinear:
      json["target_modules"] = "all-linear";
      break;
  }
  json["exclude_modules"] =
      config.exclude_regex.empty() ? OrNull(config.exclude_modules) : Json(config.exclude_regex);
  json["modules_to_save"] = OrNull(config.modules_to_save);
  json["layers_pattern"] = OrNull(config.layers_pattern);
  json["layers_to_transform"] =
      config.layers_to_transform ? Json(*config.layers_to_transform) : Json();
  json["rank_pattern"] = Json::object();
  for (const auto& [pattern, rank] : config.rank_pattern) json["rank_pattern"][pattern] = rank;
  json["alpha_pattern"] = Json::object();
  for (const auto& [pattern, alpha] : config.alpha_pattern) {
    json["alpha_pattern"][pattern] = Number(alpha);
  }
  return DumpJson(json, 2) + "\n";
}

}  // namespace edgewise::formats
