#include "io/streamed_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

namespace edgewise {

Result<std::unique_ptr<StreamedFile>> StreamedFile::Open(const std::string& path, bool direct) {
  int fd = direct ? ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT) : -1;
  const bool is_direct = fd >= 0;
  if (fd < 0) fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || ::fstat(fd, &st) != 0) {
    const Status status = IoError(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
    if (fd >= 0) ::close(fd);
    return status;
  }
  std::unique_ptr<StreamedFile> file(
      new StreamedFile(fd, path, static_cast<int64_t>(st.st_size), is_direct));
  file->drop_ = direct && !is_direct;
  return file;
}

StreamedFile::~StreamedFile() { ::close(fd_); }

Status StreamedFile::Read(int64_t offset, int64_t length, int64_t needed, std::byte* out) const {
  assert(offset % kAlignment == 0 && length % kAlignment == 0);
  int64_t done = 0;
  while (done < length) {
    const ssize_t n = ::pread(fd_, out + done, static_cast<size_t>(length - done), offset + done);
    if (n < 0) {
      if (errno == EINTR) continue;
      return IoError(fmt::format("cannot read {}: {}", path_, std::strerror(errno)));
    }
    if (n == 0) break;
    done += n;
    // A direct read that ends off a block boundary has met the end of the file.
    if (n % kAlignment != 0 && direct_) break;
  }
  if (done < needed) {
    return BadInput(fmt::format("{} ends at byte {}; {} are needed: it changed while in use", path_,
                                offset + done, offset + needed));
  }
  if (drop_) ::posix_fadvise(fd_, offset, length, POSIX_FADV_DONTNEED);
  return Status::Ok();
}

}  // namespace edgewise
