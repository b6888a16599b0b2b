#include "io/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace edgewise {

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path, MapMode mode) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = fmt::format("cannot open {}: {}", path, std::strerror(errno));
    return errno == ENOENT ? NotFound(message) : IoError(message);
  }
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  Status status;
  struct stat st;
  if (::fstat(fd, &st) != 0) {
    status = IoError(fmt::format("cannot stat {}: {}", path, std::strerror(errno)));
  } else if (!S_ISREG(st.st_mode)) {
    status = BadInput(path + " is not a regular file");
  } else if (st.st_size > 0) {
    file->size_ = static_cast<size_t>(st.st_size);
    if (mode == MapMode::kMap) {
      void* p = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
      if (p == MAP_FAILED) {
        status = IoError(fmt::format("cannot map {}: {}", path, std::strerror(errno)));
        file->size_ = 0;
      } else {
        file->data_ = static_cast<const std::byte*>(p);
      }
    } else {
      file->copy_.reset(new std::byte[file->size_]);
      file->data_ = file->copy_.get();
      size_t done = 0;
      while (done < file->size_) {
        const ssize_t n =
            ::pread(fd, file->copy_.get() + done, file->size_ - done, static_cast<off_t>(done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
          status = IoError(fmt::format("cannot read {}: {}", path,
                                       n == 0 ? "it became shorter" : std::strerror(errno)));
          break;
        }
        done += static_cast<size_t>(n);
      }
    }
  }
  ::close(fd);
  if (!status.ok()) return status;
  return std::shared_ptr<const MappedFile>(std::move(file));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr && copy_ == nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
}

void MappedFile::Drop(size_t offset, size_t length) const {
  if (copy_ != nullptr || length == 0 || offset >= size_) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  // Only whole pages inside the range: the edges may be shared with neighbours still in use.
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + length) / page * page;
  if (end > begin) {
    ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
  }
}

}  // namespace edgewise
