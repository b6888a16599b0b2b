// Names out of files, made fit for error messages.
#pragma once

#include <string>
#include <string_view>

namespace edgewise::formats {

// In double quotes, control characters and non-ASCII bytes as \xNN, cut after 80 bytes.
std::string Printable(std::string_view text);

// "[2, 3]"
template <typename Dims>
std::string ShapeText(const Dims& dims) {
  std::string out = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i != 0) out += ", ";
    out += std::to_string(dims[i]);
  }
  return out + "]";
}

}  // namespace edgewise::formats
