#include <algorithm>

#include "infer/session.h"
#include "io/env.h"
#include "io/json.h"

namespace edgewise::infer {
namespace {

void AddId(std::vector<int32_t>& ids, int64_t id) {
  if (id < 0 || id > INT32_MAX) return;
  const auto value = static_cast<int32_t>(id);
  if (std::find(ids.begin(), ids.end(), value) == ids.end()) ids.push_back(value);
}

// An integer or a list of integers.
Status AddIds(const Json& json, const std::string& where, std::vector<int32_t>& ids) {
  if (json.is_null()) return Status::Ok();
  const Json list = json.is_array() ? json : Json::array({json});
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      return BadInput(where + ": eos_token_id has to be an integer or a list of integers");
    }
    AddId(ids, id.get<int64_t>());
  }
  return Status::Ok();
}

template <typename T>
Status Take(const Json& json, const char* key, const std::string& where, T* out) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return Status::Ok();
  if (!it->is_number()) return BadInput(where + ": " + key + " has to be a number");
  const double value = it->get<double>();
  // Also guards the conversion of absurd numbers to an integer type.
  if (!(value > -1e9 && value < 1e9)) return BadInput(where + ": " + key + " is out of range");
  *out = static_cast<T>(value);
  return Status::Ok();
}

}  // namespace

Result<GenerationDefaults> ReadGenerationDefaults(const formats::ModelLocation& location,
                                                  const model::ModelConfig& config,
                                                  const text::Tokenizer& tokenizer) {
  GenerationDefaults defaults;
  if (location.kind == formats::ModelLocation::Kind::kHfDirectory) {
    const std::string path = JoinPath(location.path, "generation_config.json");
    if (PosixEnv().Exists(path)) {
      EW_ASSIGN(const Json json, ReadJsonFile(path));
      if (!json.is_object()) return BadInput(path + ": expected an object");
      if (json.contains("eos_token_id")) {
        EW_RETURN_IF_ERROR(AddIds(json["eos_token_id"], path, defaults.eos_ids));
      }
      SamplingOptions& s = defaults.sampling;
      EW_RETURN_IF_ERROR(Take(json, "temperature", path, &s.temperature));
      EW_RETURN_IF_ERROR(Take(json, "top_k", path, &s.top_k));
      EW_RETURN_IF_ERROR(Take(json, "top_p", path, &s.top_p));
      EW_RETURN_IF_ERROR(Take(json, "min_p", path, &s.min_p));
      EW_RETURN_IF_ERROR(Take(json, "repetition_penalty", path, &s.repetition_penalty));
      const Status valid = ValidateSampling(s);
      if (!valid.ok()) return BadInput(path + ": " + valid.message());
    }
  }
  if (tokenizer.eos_id()) AddId(defaults.eos_ids, *tokenizer.eos_id());
  for (int64_t id : config.eos_ids) AddId(defaults.eos_ids, id);
  return defaults;
}

}  // namespace edgewise::infer
