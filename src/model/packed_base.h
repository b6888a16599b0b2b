// Compressed bases on disk: a Hugging Face directory whose weights are in `packed.safetensors`.
// A packed matrix W is the U8 tensor "<name>.packed" (the blob of kernels/packed/packed_matrix.h)
// in place of "<name>.weight"; everything else keeps its name and a float type.
#pragma once

#include <string>
#include <string_view>

namespace edgewise::model {

inline constexpr std::string_view kPackedFile = "packed.safetensors";

// "model.norm.weight" -> "model.norm.packed".
inline std::string PackedName(std::string_view weight_name) {
  constexpr std::string_view kSuffix = ".weight";
  if (weight_name.ends_with(kSuffix)) weight_name.remove_suffix(kSuffix.size());
  return std::string(weight_name) + ".packed";
}

}  // namespace edgewise::model
