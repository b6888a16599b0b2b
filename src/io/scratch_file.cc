#include "io/scratch_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>

namespace edgewise {
namespace {

Status Errno(std::string_view what, const std::string& directory, int err) {
  return IoError(
      fmt::format("cannot {} a temporary file in {}: {}", what, directory, std::strerror(err)));
}

class PosixScratchFile : public ScratchFile {
 public:
  PosixScratchFile(int fd, std::string directory, bool direct)
      : fd_(fd), directory_(std::move(directory)), direct_(direct) {}
  ~PosixScratchFile() override { ::close(fd_); }
  PosixScratchFile(const PosixScratchFile&) = delete;
  PosixScratchFile& operator=(const PosixScratchFile&) = delete;

  Status Write(int64_t offset, std::span<const std::byte> bytes) override {
    const auto length = static_cast<int64_t>(bytes.size());
    for (int64_t done = 0; done < length;) {
      const ssize_t n = ::pwrite(fd_, bytes.data() + done, static_cast<size_t>(length - done),
                                 static_cast<off_t>(offset + done));
      if (n > 0) {
        done += n;
      } else if (n == 0 || !Again()) {
        return Errno("write", directory_, n == 0 ? ENOSPC : errno);
      }
    }
    if (direct_) return Status::Ok();
    // Pages that are on their way to the disk cannot be dropped yet.
    if (::fdatasync(fd_) != 0) return Errno("write", directory_, errno);
    ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(length),
                    POSIX_FADV_DONTNEED);
    return Status::Ok();
  }

  Status Read(int64_t offset, std::span<std::byte> bytes) override {
    const auto length = static_cast<int64_t>(bytes.size());
    for (int64_t done = 0; done < length;) {
      const ssize_t n = ::pread(fd_, bytes.data() + done, static_cast<size_t>(length - done),
                                static_cast<off_t>(offset + done));
      if (n > 0) {
        done += n;
      } else if (n == 0 || !Again()) {
        return Errno("read", directory_, n == 0 ? EIO : errno);
      }
    }
    if (!direct_) {
      ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(length),
                      POSIX_FADV_DONTNEED);
    }
    return Status::Ok();
  }

 private:
  // Whether the failed call is to be made again: it was interrupted, or the file system takes the
  // flag for direct access and then refuses it.
  bool Again() {
    if (errno == EINTR) return true;
    if (errno != EINVAL || !direct_.exchange(false)) return false;
    const int flags = ::fcntl(fd_, F_GETFL);
    return flags >= 0 && ::fcntl(fd_, F_SETFL, flags & ~O_DIRECT) == 0;
  }

  int fd_;
  std::string directory_;
  std::atomic<bool> direct_;
};

// Without a name, or with one that goes at once.
int Open(const std::string& directory, int flags) {
  const int fd = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
  std::string name = JoinPath(directory, ".edgewise-scratch-XXXXXX");
  const int named = ::mkostemp(name.data(), O_CLOEXEC | flags);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

}  // namespace

Result<std::unique_ptr<ScratchFile>> OpenScratchFile(const std::string& directory, int64_t bytes) {
  assert(bytes % ScratchFile::kAlignment == 0);
  EW_ASSIGN(const int64_t free, PosixEnv().FreeBytes(directory));
  if (free < bytes) {
    return IoError(
        fmt::format("{} has {} bytes free, a temporary file needs {}", directory, free, bytes));
  }
  int fd = Open(directory, O_DIRECT);
  const bool direct = fd >= 0;
  if (!direct) fd = Open(directory, 0);
  if (fd < 0) return Errno("create", directory, errno);
  std::unique_ptr<ScratchFile> file(new PosixScratchFile(fd, directory, direct));
  // The room is taken now, so that it is not missing in the middle of a step.
  if (bytes > 0 && ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP &&
      errno != ENOSYS) {
    return Errno("make room for", directory, errno);
  }
  return file;
}

}  // namespace edgewise
