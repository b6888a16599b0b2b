// Checked access to the keys of an untrusted JSON object.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "io/json.h"

namespace edgewise::model {

// Reads keys with a type and a range. null counts as absent. The first error is kept and names the
// key, what it holds and what it has to be.
class JsonKeys {
 public:
  JsonKeys(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  const Json* Find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  bool HasKey(const char* key) const { return json_.contains(key); }

  int64_t Int(const char* key, std::optional<int64_t> fallback, int64_t low, int64_t high) {
    const Json* value = Find(key);
    if (value == nullptr) {
      if (!fallback) Fail(BadInput(fmt::format("{}{} is missing", where_, key)));
      return fallback.value_or(low);
    }
    const bool fits = value->is_number_integer() &&
                      !(value->is_number_unsigned() && value->get<uint64_t>() >> 62 != 0);
    const int64_t number = fits ? value->get<int64_t>() : 0;
    if (!fits || number < low || number > high) {
      Fail(Wrong(key, *value, fmt::format("a whole number in {} .. {}", low, high)));
      return low;
    }
    return number;
  }

  double Float(const char* key, double fallback, double low, double high) {
    const Json* value = Find(key);
    if (value == nullptr) return fallback;
    const double number = value->is_number() ? value->get<double>() : NAN;
    if (!(number >= low && number <= high)) {
      Fail(Wrong(key, *value, fmt::format("a number in {} .. {}", low, high)));
      return fallback;
    }
    return number;
  }

  bool Bool(const char* key, bool fallback) {
    const Json* value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) {
      Fail(Wrong(key, *value, "true or false"));
      return fallback;
    }
    return value->get<bool>();
  }

  std::string String(const char* key, std::string fallback) {
    const Json* value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) {
      Fail(Wrong(key, *value, "a string"));
      return fallback;
    }
    return value->get<std::string>();
  }

  Status Wrong(const char* key, const Json& value, std::string_view wanted) const {
    std::string text = DumpJson(value);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    return BadInput(fmt::format("{}{} is {}, but has to be {}", where_, key, text, wanted));
  }
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }

 private:
  const Json& json_;
  std::string where_;
  Status status_;
};

}  // namespace edgewise::model
