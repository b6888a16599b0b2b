#include <cstdint>

#include "formats/checkpoint_manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto info = edgewise::formats::ParseManifest({reinterpret_cast<const char*>(data), size});
  if (info.ok() && !edgewise::formats::ParseManifest(FormatManifest(*info)).ok()) __builtin_trap();
  return 0;
}
