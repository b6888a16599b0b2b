#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "io/env.h"
#include "io/scratch_file.h"

namespace edgewise {
namespace {

namespace fs = std::filesystem;

Status Errno(std::string_view what, const std::string& path, int err) {
  const std::string message = fmt::format("cannot {} {}: {}", what, path, std::strerror(err));
  return err == ENOENT ? NotFound(message) : IoError(message);
}

Status Errno(std::string_view what, const std::string& path) { return Errno(what, path, errno); }

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixWritableFile() override {
    if (fd_ >= 0) ::close(fd_);
  }
  PosixWritableFile(const PosixWritableFile&) = delete;
  PosixWritableFile& operator=(const PosixWritableFile&) = delete;

  Status Append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0) {
        if (errno == EINTR) continue;
        return Errno("write", path_);
      }
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return Status::Ok();
  }
  Status Sync() override { return ::fsync(fd_) == 0 ? Status::Ok() : Errno("sync", path_); }
  Status Close() override {
    const int fd = std::exchange(fd_, -1);
    if (fd < 0) return Status::Ok();
    return ::close(fd) == 0 ? Status::Ok() : Errno("close", path_);
  }

 private:
  int fd_;
  std::string path_;
};

class PosixReadableFile : public ReadableFile {
 public:
  PosixReadableFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixReadableFile() override { ::close(fd_); }
  PosixReadableFile(const PosixReadableFile&) = delete;
  PosixReadableFile& operator=(const PosixReadableFile&) = delete;

  Result<size_t> Read(std::span<std::byte> buffer) override {
    for (;;) {
      const ssize_t n = ::read(fd_, buffer.data(), buffer.size());
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) return Errno("read", path_);
    }
  }

 private:
  int fd_;
  std::string path_;
};

class PosixEnvImpl : public Env {
 public:
  Result<std::unique_ptr<ReadableFile>> NewReadableFile(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Errno("open", path);
    return std::unique_ptr<ReadableFile>(new PosixReadableFile(fd, path));
  }
  Result<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) override {
    return Open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
  }
  Result<std::unique_ptr<WritableFile>> NewAppendableFile(const std::string& path) override {
    return Open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC);
  }

  Result<std::unique_ptr<ScratchFile>> NewScratchFile(const std::string& directory,
                                                      int64_t bytes) override {
    return OpenScratchFile(directory, bytes);
  }

  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Errno("open", path);
    Result<std::string> result = ReadAll(fd, path, max_bytes);
    ::close(fd);
    return result;
  }

  Status Rename(const std::string& from, const std::string& to) override {
    return ::rename(from.c_str(), to.c_str()) == 0 ? Status::Ok() : Errno("rename to", to);
  }

  Status SyncDir(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return Errno("open directory", path);
    const int rc = ::fsync(fd);
    const int err = errno;
    ::close(fd);
    return rc == 0 ? Status::Ok() : Errno("sync directory", path, err);
  }

  Status CreateDirs(const std::string& path) override {
    std::error_code ec;
    fs::create_directories(path, ec);
    return ec ? Errno("create directory", path, ec.value()) : Status::Ok();
  }
  Status RemoveAll(const std::string& path) override {
    std::error_code ec;
    fs::remove_all(path, ec);
    return ec ? Errno("remove", path, ec.value()) : Status::Ok();
  }
  Status Truncate(const std::string& path, int64_t size) override {
    return ::truncate(path.c_str(), size) == 0 ? Status::Ok() : Errno("truncate", path);
  }

  Result<std::vector<std::string>> ListDir(const std::string& path) override {
    std::error_code ec;
    std::vector<std::string> names;
    for (fs::directory_iterator it(path, ec), end; !ec && it != end; it.increment(ec)) {
      names.push_back(it->path().filename().string());
    }
    if (ec) return Errno("list", path, ec.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<int64_t> FileSize(const std::string& path) override {
    struct stat st;
    if (::stat(path.c_str(), &st) != 0) return Errno("stat", path);
    return static_cast<int64_t>(st.st_size);
  }
  bool Exists(const std::string& path) override {
    struct stat st;
    return ::stat(path.c_str(), &st) == 0;
  }
  bool IsDirectory(const std::string& path) override {
    struct stat st;
    return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
  }
  Result<int64_t> FreeBytes(const std::string& path) override {
    struct statvfs vfs;
    if (::statvfs(path.c_str(), &vfs) != 0) return Errno("stat file system of", path);
    return static_cast<int64_t>(vfs.f_bavail) * static_cast<int64_t>(vfs.f_frsize);
  }
  bool IsInMemory(const std::string& path) override {
    struct statfs fs;
    if (::statfs(path.c_str(), &fs) != 0) return false;
    const auto type = static_cast<uint32_t>(fs.f_type);
    return type == TMPFS_MAGIC || type == RAMFS_MAGIC;
  }

 private:
  static Result<std::unique_ptr<WritableFile>> Open(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags, 0644);
    if (fd < 0) return Errno("create", path);
    return std::unique_ptr<WritableFile>(new PosixWritableFile(fd, path));
  }

  static Result<std::string> ReadAll(int fd, const std::string& path, int64_t max_bytes) {
    struct stat st;
    if (::fstat(fd, &st) != 0) return Errno("stat", path);
    if (S_ISDIR(st.st_mode)) return BadInput(path + " is a directory, not a file");
    if (st.st_size > max_bytes) {
      return BadInput(
          fmt::format("{} has {} bytes, more than the {} accepted for this kind of file", path,
                      static_cast<int64_t>(st.st_size), max_bytes));
    }
    std::string out;
    out.reserve(static_cast<size_t>(st.st_size) + 64);
    // Read to the end rather than st_size bytes: pipes and /proc files have no size.
    char chunk[65536];
    for (;;) {
      const ssize_t n = ::read(fd, chunk, sizeof chunk);
      if (n < 0) {
        if (errno == EINTR) continue;
        return Errno("read", path);
      }
      if (n == 0) return out;
      out.append(chunk, static_cast<size_t>(n));
      if (static_cast<int64_t>(out.size()) > max_bytes) {
        return BadInput(fmt::format("{} is larger than the {} bytes accepted", path, max_bytes));
      }
    }
  }
};

}  // namespace

Env& PosixEnv() {
  static PosixEnvImpl env;
  return env;
}

Status WriteFileAtomic(Env& env, const std::string& path, std::string_view contents) {
  const std::string temp = fmt::format("{}.tmp-{}", path, ::getpid());
  const auto write = [&]() -> Status {
    EW_ASSIGN(auto file, env.NewWritableFile(temp));
    EW_RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(contents.data(), contents.size()))));
    EW_RETURN_IF_ERROR(file->Sync());
    EW_RETURN_IF_ERROR(file->Close());
    EW_RETURN_IF_ERROR(env.Rename(temp, path));
    return env.SyncDir(DirName(path));
  };
  Status status = write();
  if (!status.ok()) (void)env.RemoveAll(temp);
  return status;
}

std::string JoinPath(std::string_view a, std::string_view b) {
  if (a.empty()) return std::string(b);
  if (a.back() == '/') return fmt::format("{}{}", a, b);
  return fmt::format("{}/{}", a, b);
}

std::string BaseName(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

std::string DirName(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(slash == 0 ? "/" : path.substr(0, slash));
}

}  // namespace edgewise
