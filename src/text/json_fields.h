// Reading members of a parsed JSON document with errors that name their place. For .cc files only.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise::text {

namespace dom = simdjson::dom;

// An object and how the file calls its place ("normalizer.normalizers[1]").
struct JsonObject {
  dom::object object;
  std::string where;

  static Result<JsonObject> From(dom::element element, std::string where);

  // The member, or nothing when it is absent or null.
  std::optional<dom::element> Find(std::string_view key) const;
  std::string Path(std::string_view key) const { return where + "." + std::string(key); }

  // Absent or null is an error.
  Result<std::string_view> String(std::string_view key) const;
  Result<int64_t> Int(std::string_view key) const;
  Result<bool> Bool(std::string_view key) const;
  Result<dom::array> Array(std::string_view key) const;
  Result<JsonObject> Object(std::string_view key) const;
  // Absent or null gives the default; another type is an error.
  Result<std::optional<std::string_view>> OptionalString(std::string_view key) const;
  Result<bool> BoolOr(std::string_view key, bool fallback) const;
};

}  // namespace edgewise::text
