#include <cstdint>

#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using edgewise::formats::SafetensorsFile;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = SafetensorsFile::FromBytes(bytes, nullptr, "fuzz");
  if (!file.ok()) return 0;
  // What is accepted must be readable to the last byte.
  unsigned sum = 0;
  for (const auto& entry : (*file)->entries()) {
    for (const std::byte b : (*file)->Bytes(entry)) sum += static_cast<unsigned>(b);
    const auto tensor = (*file)->Get(entry.name);
    if (!tensor.ok()) continue;
    const auto bytes_of_view = static_cast<size_t>(tensor->view.bytes());
    if (bytes_of_view != (*file)->Bytes(entry).size()) __builtin_trap();
  }
  volatile unsigned keep = sum;
  (void)keep;
  return 0;
}
