// Reads the files of a ZIP archive (PKWARE APPNOTE): stored and deflated entries. No encryption, no
// ZIP64, no multi-disk archives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/mapped_file.h"

namespace edgewise::eval {

struct ZipEntry {
  std::string name;
  uint16_t method = 0;  // 0 stored, 8 deflated
  uint32_t crc = 0;
  uint64_t packed_bytes = 0;
  uint64_t bytes = 0;
  uint64_t local_offset = 0;
};

class ZipFile {
 public:
  // Error: not a ZIP archive, or a directory that points outside the file.
  static Result<ZipFile> Open(const std::string& path);

  const std::vector<ZipEntry>& entries() const { return entries_; }
  // The contents of an entry, checked against its CRC. Nothing above `max_bytes` is unpacked.
  Result<std::string> Read(const ZipEntry& entry, uint64_t max_bytes = uint64_t{64} << 20) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<ZipEntry> entries_;
};

}  // namespace edgewise::eval
