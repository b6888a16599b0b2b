// A whole file, read-only, mapped or read into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace edgewise {

// Mapping costs no memory until touched, but another process that truncates the file makes reads
// fault: `kRead` copies instead, for files on storage that is not trusted.
enum class MapMode { kMap, kRead };

class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> Open(const std::string& path,
                                                        MapMode mode = MapMode::kMap);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Tells the system that [offset, offset + length) is not needed in memory for now.
  void Drop(size_t offset, size_t length) const;

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::unique_ptr<std::byte[]> copy_;
};

}  // namespace edgewise
