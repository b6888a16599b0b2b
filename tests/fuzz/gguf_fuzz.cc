#include <cstdint>

#include "formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using edgewise::formats::GgufFile;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = GgufFile::FromBytes(bytes, nullptr, "fuzz");
  if (!file.ok()) return 0;
  for (const auto& [key, value] : (*file)->header().metadata) {
    (void)(*file)->String(key);
    (void)(*file)->Int(key);
    (void)(*file)->Float(key);
    (void)(*file)->Ints(key);
    (void)(*file)->Floats(key);
    (void)(*file)->Strings(key);
  }
  for (const auto& tensor : (*file)->tensors()) (void)(*file)->DequantizeAll(tensor);
  return 0;
}
