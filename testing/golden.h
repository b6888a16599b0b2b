// Reads reference arrays. Include only in tests of layers above `formats`.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "formats/safetensors.h"

namespace edgewise::testing {

using GoldenFile = std::shared_ptr<const formats::SafetensorsFile>;

inline GoldenFile OpenGolden(const std::string& path) {
  auto file = formats::SafetensorsFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status().message();
  return file.ok() ? *file : nullptr;
}

// The elements of a tensor; a failed expectation and nothing when it is absent or of another size
// of element.
template <typename T>
std::vector<T> ReadGolden(const GoldenFile& file, const std::string& name) {
  const auto* entry = file == nullptr ? nullptr : file->Find(name);
  if (entry == nullptr) {
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  int64_t count = 1;
  for (int64_t d : entry->shape) count *= d;
  const auto bytes = file->Bytes(*entry);
  EXPECT_EQ(bytes.size(), static_cast<size_t>(count) * sizeof(T)) << name;
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace edgewise::testing
