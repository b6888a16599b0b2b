// Values of a JSON document whose shape is not certain.
#pragma once

#include <initializer_list>
#include <string>

#include "io/json.h"

namespace edgewise::report {

// The value at a path of keys, or null.
inline const Json& At(const Json& json, std::initializer_list<const char*> path) {
  static const Json kNull;
  const Json* at = &json;
  for (const char* key : path) {
    if (!at->is_object()) return kNull;
    const auto found = at->find(key);
    if (found == at->end()) return kNull;
    at = &*found;
  }
  return *at;
}

inline double NumberAt(const Json& json, std::initializer_list<const char*> path, double fallback) {
  const Json& value = At(json, path);
  return value.is_number() ? value.get<double>() : fallback;
}

inline std::string TextAt(const Json& json, std::initializer_list<const char*> path) {
  const Json& value = At(json, path);
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace edgewise::report
