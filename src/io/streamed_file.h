// A file that is read piece by piece into buffers of the caller's, past the page cache where asked:
// for weights that do not fit into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace edgewise {

class StreamedFile {
 public:
  // Offsets, lengths and addresses of reads are multiples of this, which direct reads need.
  static constexpr int64_t kAlignment = 4096;

  // `direct`: leave the page cache out (O_DIRECT); where the file system has no such reads, what
  // was read is dropped from the cache instead.
  static Result<std::unique_ptr<StreamedFile>> Open(const std::string& path, bool direct);
  ~StreamedFile();
  StreamedFile(const StreamedFile&) = delete;
  StreamedFile& operator=(const StreamedFile&) = delete;

  // Reads [offset, offset + length) to `out`; all three are multiples of kAlignment. The file may
  // end within the last kAlignment bytes; `needed` of them have to be there (error kBadInput).
  // Any thread.
  Status Read(int64_t offset, int64_t length, int64_t needed, std::byte* out) const;
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  StreamedFile(int fd, std::string path, int64_t size, bool direct)
      : fd_(fd), path_(std::move(path)), size_(size), direct_(direct) {}
  int fd_;
  std::string path_;
  int64_t size_;
  bool direct_;  // the file is open for direct reads
  bool drop_ = false;
};

}  // namespace edgewise
