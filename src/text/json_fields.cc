#include "text/json_fields.h"

#include <fmt/format.h>

#include <utility>

namespace edgewise::text {
namespace {

template <typename T>
Result<T> Get(const JsonObject& from, std::string_view key, std::string_view kind) {
  const std::optional<dom::element> element = from.Find(key);
  if (!element) return BadInput(fmt::format("{} is missing", from.Path(key)));
  T value;
  if (element->get(value) != simdjson::SUCCESS) {
    return BadInput(fmt::format("{} is not {}", from.Path(key), kind));
  }
  return value;
}

}  // namespace

Result<JsonObject> JsonObject::From(dom::element element, std::string where) {
  JsonObject out;
  if (element.get(out.object) != simdjson::SUCCESS) {
    return BadInput(fmt::format("{} is not an object", where));
  }
  out.where = std::move(where);
  return out;
}

std::optional<dom::element> JsonObject::Find(std::string_view key) const {
  dom::element element;
  if (object.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) {
    return std::nullopt;
  }
  return element;
}

Result<std::string_view> JsonObject::String(std::string_view key) const {
  return Get<std::string_view>(*this, key, "a string");
}
Result<int64_t> JsonObject::Int(std::string_view key) const {
  return Get<int64_t>(*this, key, "an integer");
}
Result<bool> JsonObject::Bool(std::string_view key) const {
  return Get<bool>(*this, key, "true or false");
}
Result<dom::array> JsonObject::Array(std::string_view key) const {
  return Get<dom::array>(*this, key, "an array");
}

Result<JsonObject> JsonObject::Object(std::string_view key) const {
  const std::optional<dom::element> element = Find(key);
  if (!element) return BadInput(fmt::format("{} is missing", Path(key)));
  return From(*element, Path(key));
}

Result<std::optional<std::string_view>> JsonObject::OptionalString(std::string_view key) const {
  if (!Find(key)) return std::optional<std::string_view>();
  EW_ASSIGN(const std::string_view value, String(key));
  return std::optional<std::string_view>(value);
}

Result<bool> JsonObject::BoolOr(std::string_view key, bool fallback) const {
  if (!Find(key)) return fallback;
  return Bool(key);
}

}  // namespace edgewise::text
