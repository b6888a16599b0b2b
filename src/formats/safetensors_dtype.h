// The element types of the safetensors format.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace edgewise::formats {

struct SafetensorsType {
  std::string_view name;
  int bits;
  std::optional<DType> dtype;  // nothing: sizes are known, values are not computed with
  int order;                   // place in the reference's enumeration; files are sorted by it
};

const SafetensorsType* FindSafetensorsType(std::string_view name);
const SafetensorsType& SafetensorsTypeOf(DType dtype);

}  // namespace edgewise::formats
