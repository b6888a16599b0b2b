#include "io/random_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace edgewise {
namespace {
Status Errno(std::string_view what, const std::string& path) {
  return IoError(fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)));
}
}  // namespace

Result<std::unique_ptr<RandomFile>> RandomFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Errno("open", path);
  return std::unique_ptr<RandomFile>(new RandomFile(fd, path));
}

RandomFile::~RandomFile() { ::close(fd_); }

Status RandomFile::Read(int64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd_, bytes.data(), bytes.size(), offset);
    if (n < 0) {
      if (errno == EINTR) continue;
      return Errno("read", path_);
    }
    if (n == 0) return BadInput(fmt::format("{} ends at byte {}", path_, offset));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
  return Status::Ok();
}

Status RandomFile::Write(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (n < 0) {
      if (errno == EINTR) continue;
      return Errno("write", path_);
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
  return Status::Ok();
}

Status RandomFile::Resize(int64_t size) {
  return ::ftruncate(fd_, size) == 0 ? Status::Ok() : Errno("resize", path_);
}

Status RandomFile::Sync() { return ::fdatasync(fd_) == 0 ? Status::Ok() : Errno("sync", path_); }

Result<int64_t> RandomFile::Size() const {
  struct stat st;
  if (::fstat(fd_, &st) != 0) return Errno("stat", path_);
  return static_cast<int64_t>(st.st_size);
}

Result<int64_t> RandomFile::AllocatedBytes() const {
  struct stat st;
  if (::fstat(fd_, &st) != 0) return Errno("stat", path_);
  return static_cast<int64_t>(st.st_blocks) * 512;
}

void RandomFile::DropCached(int64_t offset, int64_t length) const {
  ::posix_fadvise(fd_, offset, length, POSIX_FADV_DONTNEED);
}

}  // namespace edgewise
