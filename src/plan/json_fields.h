// Reading fields of small JSON documents that come from outside, with errors that name the field.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"

namespace edgewise::plan {

// Collects the first error, so that a record is read in one go and checked once.
class Fields {
 public:
  Fields(const nlohmann::json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) Fail("", "is not an object");
  }

  std::string Text(const char* key) {
    const nlohmann::json* v = Find(key);
    if (v == nullptr) return "";
    if (v->is_string()) return v->get<std::string>();
    Fail(key, "is not a string");
    return "";
  }
  bool Flag(const char* key) {
    const nlohmann::json* v = Find(key);
    if (v == nullptr) return false;
    if (v->is_boolean()) return v->get<bool>();
    Fail(key, "is not true or false");
    return false;
  }
  // A count or size: 0 .. 2^53.
  int64_t Count(const char* key, int64_t absent = 0) {
    const nlohmann::json* v = Find(key);
    if (v == nullptr) return absent;
    if (v->is_number_integer() && *v >= 0 && *v <= (int64_t{1} << 53)) return v->get<int64_t>();
    Fail(key, "is not a count");
    return absent;
  }
  // A rate or share: finite, not negative.
  double Number(const char* key, double absent = 0) {
    const nlohmann::json* v = Find(key);
    if (v == nullptr) return absent;
    if (v->is_number()) {
      const double d = v->get<double>();
      if (std::isfinite(d) && d >= 0) return d;
    }
    Fail(key, "is not a number of at least 0");
    return absent;
  }
  // An array; an empty one when absent.
  const nlohmann::json& List(const char* key) {
    static const nlohmann::json empty = nlohmann::json::array();
    const nlohmann::json* v = Find(key);
    if (v == nullptr) return empty;
    if (v->is_array()) return *v;
    Fail(key, "is not a list");
    return empty;
  }
  void Fail(const char* key, const char* what) {
    if (!status_.ok()) return;
    status_ = BadInput(*key == '\0' ? fmt::format("{} {}", where_, what)
                                    : fmt::format("{}: {} {}", where_, key, what));
  }
  const Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* key) const {
    if (!json_.is_object()) return nullptr;
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  const nlohmann::json& json_;
  std::string where_;
  Status status_;
};

}  // namespace edgewise::plan
