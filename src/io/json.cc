#include "io/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "io/env.h"

namespace edgewise {

Result<Json> ParseJson(std::string_view text, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    return BadInput(fmt::format("JSON text of {} bytes, limit {}", text.size(), limits.max_bytes));
  }
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::string problem;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > limits.max_depth) {
      throw std::length_error(fmt::format("nested deeper than {} levels", limits.max_depth));
    }
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      if (!keys.back().insert(parsed.get<std::string>()).second) {
        throw std::invalid_argument(fmt::format("duplicate key \"{}\"", parsed.get<std::string>()));
      }
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), callback);
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("not valid JSON: {}", e.what()));
  } catch (const std::exception& e) {
    return BadInput(fmt::format("JSON refused: {}", e.what()));
  }
}

Result<Json> ReadJsonFile(const std::string& path, JsonLimits limits) {
  EW_ASSIGN(std::string text, PosixEnv().ReadFile(path, static_cast<int64_t>(limits.max_bytes)));
  return ParseJson(text, limits).WithContext(path);
}

std::string DumpJson(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string DumpJson(const OrderedJson& json, int indent) {
  return json.dump(indent, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace edgewise
