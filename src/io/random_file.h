// A file read and written at offsets, for caches larger than memory. Not for results: nothing here
// is atomic, so what is read back must carry checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace edgewise {

class RandomFile {
 public:
  // Opens for reading and writing; creates when absent.
  static Result<std::unique_ptr<RandomFile>> Open(const std::string& path);
  ~RandomFile();
  RandomFile(const RandomFile&) = delete;
  RandomFile& operator=(const RandomFile&) = delete;

  // Fills `bytes` from `offset`. Error (kBadInput): the file ends before.
  Status Read(int64_t offset, std::span<std::byte> bytes) const;
  Status Write(int64_t offset, std::span<const std::byte> bytes);
  // Makes the file exactly `size` bytes long; new bytes read as zero and take no space until
  // written.
  Status Resize(int64_t size);
  Status Sync();
  Result<int64_t> Size() const;
  // What it takes on the disk: less than its size where nothing was written yet.
  Result<int64_t> AllocatedBytes() const;
  // Tells the system that the pages of this range need not stay in its cache.
  void DropCached(int64_t offset, int64_t length) const;
  const std::string& path() const { return path_; }

 private:
  RandomFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

}  // namespace edgewise
