#include "formats/ggml_quants.h"

namespace edgewise::formats {
namespace {

using T = GgmlType;

constexpr GgmlTypeInfo kTypes[] = {
    {T::kF32, "F32", 1, 4, true, DType::kF32},
    {T::kF16, "F16", 1, 2, true, DType::kF16},
    {T::kQ4_0, "Q4_0", 32, 18, true, std::nullopt},
    {T::kQ4_1, "Q4_1", 32, 20, true, std::nullopt},
    {T::kQ5_0, "Q5_0", 32, 22, true, std::nullopt},
    {T::kQ5_1, "Q5_1", 32, 24, true, std::nullopt},
    {T::kQ8_0, "Q8_0", 32, 34, true, std::nullopt},
    {T::kQ8_1, "Q8_1", 32, 36, false, std::nullopt},
    {T::kQ2_K, "Q2_K", 256, 84, true, std::nullopt},
    {T::kQ3_K, "Q3_K", 256, 110, true, std::nullopt},
    {T::kQ4_K, "Q4_K", 256, 144, true, std::nullopt},
    {T::kQ5_K, "Q5_K", 256, 176, true, std::nullopt},
    {T::kQ6_K, "Q6_K", 256, 210, true, std::nullopt},
    {T::kQ8_K, "Q8_K", 256, 292, false, std::nullopt},
    {T::kIQ2_XXS, "IQ2_XXS", 256, 66, false, std::nullopt},
    {T::kIQ2_XS, "IQ2_XS", 256, 74, false, std::nullopt},
    {T::kIQ3_XXS, "IQ3_XXS", 256, 98, false, std::nullopt},
    {T::kIQ1_S, "IQ1_S", 256, 50, false, std::nullopt},
    {T::kIQ4_NL, "IQ4_NL", 32, 18, true, std::nullopt},
    {T::kIQ3_S, "IQ3_S", 256, 110, false, std::nullopt},
    {T::kIQ2_S, "IQ2_S", 256, 82, false, std::nullopt},
    {T::kIQ4_XS, "IQ4_XS", 256, 136, true, std::nullopt},
    {T::kI8, "I8", 1, 1, false, DType::kI8},
    {T::kI16, "I16", 1, 2, false, DType::kI16},
    {T::kI32, "I32", 1, 4, false, DType::kI32},
    {T::kI64, "I64", 1, 8, false, DType::kI64},
    {T::kF64, "F64", 1, 8, true, DType::kF64},
    {T::kIQ1_M, "IQ1_M", 256, 56, false, std::nullopt},
    {T::kBF16, "BF16", 1, 2, true, DType::kBF16},
    {T::kTQ1_0, "TQ1_0", 256, 54, false, std::nullopt},
    {T::kTQ2_0, "TQ2_0", 256, 66, false, std::nullopt},
    {T::kMXFP4, "MXFP4", 32, 17, true, std::nullopt},
};

}  // namespace

const GgmlTypeInfo* FindGgmlType(uint32_t number) {
  for (const GgmlTypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.type) == number) return &info;
  }
  return nullptr;
}

const GgmlTypeInfo* FindGgmlType(std::string_view name) {
  for (const GgmlTypeInfo& info : kTypes) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

const GgmlTypeInfo& InfoOf(GgmlType type) { return *FindGgmlType(static_cast<uint32_t>(type)); }

}  // namespace edgewise::formats
