#include "formats/safetensors_dtype.h"

#include <cassert>

namespace edgewise::formats {
namespace {

constexpr SafetensorsType kTypes[] = {
    {"BOOL", 8, DType::kBool, 0},
    {"F4", 4, std::nullopt, 1},
    {"F6_E2M3", 6, std::nullopt, 2},
    {"F6_E3M2", 6, std::nullopt, 3},
    {"U8", 8, DType::kU8, 4},
    {"I8", 8, DType::kI8, 5},
    {"F8_E5M2", 8, std::nullopt, 6},
    {"F8_E4M3", 8, std::nullopt, 7},
    {"F8_E8M0", 8, std::nullopt, 8},
    {"F8_E4M3FNUZ", 8, std::nullopt, 9},
    {"F8_E5M2FNUZ", 8, std::nullopt, 10},
    {"I16", 16, DType::kI16, 11},
    {"U16", 16, DType::kU16, 12},
    {"F16", 16, DType::kF16, 13},
    {"BF16", 16, DType::kBF16, 14},
    {"I32", 32, DType::kI32, 15},
    {"U32", 32, DType::kU32, 16},
    {"F32", 32, DType::kF32, 17},
    {"C64", 64, std::nullopt, 18},
    {"F64", 64, DType::kF64, 19},
    {"I64", 64, DType::kI64, 20},
    {"U64", 64, DType::kU64, 21},
};

}  // namespace

const SafetensorsType* FindSafetensorsType(std::string_view name) {
  for (const SafetensorsType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

const SafetensorsType& SafetensorsTypeOf(DType dtype) {
  for (const SafetensorsType& type : kTypes) {
    if (type.dtype == dtype) return type;
  }
  assert(false && "every DType has a safetensors name");
  return kTypes[0];
}

}  // namespace edgewise::formats
