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
  // The same with a bound of its own.
  int64_t Count(const char* key, int64_t absent, int64_t most) {
    const int64_t count = Count(key, absent);
    if (count <= most) return count;
    Fail(key, fmt::format("is more than {}", most));
    return absent;
  }
  // A rate in 10^9 a second: what a machine can have, so that no time computed from it is without
  // bound. 0 passes.
  double Rate(const char* key, double absent = 0) {
    const double rate = Number(key, absent);
    if (rate == 0 || (rate >= 1e-6 && rate <= 1e9)) return rate;
    Fail(key, "is no rate (1e-6 to 1e9)");
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
  // An array of at most so many entries; an empty one when absent.
  const nlohmann::json& List(const char* key, size_t most) {
    static const nlohmann::json empty = nlohmann::json::array();
    const nlohmann::json* v = Find(key);
    if (v == nullptr) return empty;
    if (v->is_array() && v->size() <= most) return *v;
    Fail(key, v->is_array() ? fmt::format("has more than {} entries", most) : "is not a list");
    return empty;
  }
  void Fail(const char* key, std::string_view what) {
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
