// Names of JSON types for messages.
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace edgewise::data {

// JSON's name of the type, with its article.
inline std::string_view TypeOf(const text::jinja::Value& v) {
  using text::jinja::Kind;
  switch (v.kind()) {
    case Kind::kNone:
      return "null";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInt:
    case Kind::kFloat:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kList:
      return "an array";
    case Kind::kDict:
      return "an object";
    default:
      return "missing";
  }
}

}  // namespace edgewise::data
