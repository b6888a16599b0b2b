// Bandwidth of the caches, of memory and of the disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/cpu_time.h"
#include "kernels/kernel_table.h"
#include "schedule/measure.h"

namespace edgewise::schedule {
namespace {

constexpr int64_t kPiece = int64_t{1} << 20;
constexpr int kRuns = 3;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Status Failed(const char* what, const std::string& path) {
  return IoError(fmt::format("{} {}: {}", what, path, std::strerror(errno)));
}

// What is left of a process that is killed is nothing: the file's name goes at once.
struct TemporaryFile {
  int fd = -1, direct = -1;  // of the same file; direct: past the page cache, -1 where it cannot be
  ~TemporaryFile() {
    if (fd >= 0) ::close(fd);
    if (direct >= 0) ::close(direct);
  }
};

Result<double> ReadSeconds(int fd, int64_t bytes, void* buffer) {
  const double start = Now();
  for (int64_t at = 0; at < bytes;) {
    const ssize_t n = ::pread(fd, buffer, static_cast<size_t>(kPiece), at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return IoError("reading the disk's test file failed");
    at += n;
  }
  return Now() - start;
}

}  // namespace

Bandwidth MeasureBandwidth(ExecContext& ctx, int64_t bytes_per_thread) {
  const kernels::KernelTable& table = kernels::TableFor(ctx.isa());
  const int64_t n = std::max<int64_t>(bytes_per_thread / 4 / 16 * 16, 1024);
  const int threads = ctx.threads();
  std::vector<FloatBuffer> arrays;
  for (int t = 0; t < threads; ++t) arrays.push_back(FloatBuffer::Zeros(n));
  const int64_t rounds = std::max<int64_t>(1, (int64_t{64} << 20) / (n * 4));
  Bandwidth best;
  for (int run = 0; run < kRuns; ++run) {
    double start = Now();
    ctx.pool().Run(threads, [&](int64_t task, int) {
      FloatBuffer& a = arrays[static_cast<size_t>(task)];
      // Every element is read; that all are finite is known here, but not to the compiler.
      for (int64_t i = 0; i < rounds; ++i) {
        if (!table.finite(n, a.data())) a[0] = 0;
      }
    });
    const double bytes = static_cast<double>(threads * rounds * n) * 4e-9;
    best.read_gbps = std::max(best.read_gbps, bytes / (Now() - start));
    start = Now();
    ctx.pool().Run(threads, [&](int64_t task, int) {
      FloatBuffer& a = arrays[static_cast<size_t>(task)];
      for (int64_t i = 0; i < rounds; ++i) {
        std::fill_n(a.data(), n, static_cast<float>(i));
        // The array escapes here: no round may be left out.
        __asm__ volatile("" : : "r"(a.data()) : "memory");
      }
    });
    best.write_gbps = std::max(best.write_gbps, bytes / (Now() - start));
  }
  return best;
}

Result<DiskRates> MeasureDisk(const std::string& directory, int64_t bytes) {
  TemporaryFile file;
  std::string name = directory + "/edgewise-disk-XXXXXX";
  file.fd = ::mkstemp(name.data());
  if (file.fd < 0) return Failed("cannot measure the disk: cannot create", name);
  file.direct = ::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  ::unlink(name.c_str());
  bytes = std::max(bytes / kPiece * kPiece, kPiece);
  AlignedBuffer buffer(static_cast<size_t>(kPiece));  // mapped, so aligned to pages
  // Values that no file system or disk can compress away.
  uint64_t word = 88172645463325252ull;
  for (size_t i = 0; i < buffer.size() / 8; ++i) {
    word ^= word << 13, word ^= word >> 7, word ^= word << 17;
    buffer.as<uint64_t>()[i] = word;
  }
  DiskRates rates;
  const double start = Now();
  for (int64_t at = 0; at < bytes; at += kPiece) {
    const ssize_t n = ::pwrite(file.fd, buffer.data(), static_cast<size_t>(kPiece), at);
    if (n == kPiece) continue;
    // A disk that is full shows what it can do in what it took.
    if (at > 0 && (n >= 0 || errno == ENOSPC || errno == EDQUOT)) {
      bytes = at;
      break;
    }
    if (n >= 0) errno = ENOSPC;
    return Failed("cannot measure the disk: cannot write", name);
  }
  if (::fdatasync(file.fd) != 0) return Failed("cannot measure the disk: cannot write", name);
  const double gigabytes = static_cast<double>(bytes) * 1e-9;
  rates.write_gbps = gigabytes / (Now() - start);

  for (int run = 0; run < kRuns; ++run) {
    if (file.direct < 0) ::posix_fadvise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
    const double began = ThreadCpuSeconds();
    EW_ASSIGN(const double seconds,
              ReadSeconds(file.direct >= 0 ? file.direct : file.fd, bytes, buffer.data()));
    if (gigabytes / seconds < rates.read_gbps) continue;
    rates.read_gbps = gigabytes / seconds;
    rates.read_processors = std::min((ThreadCpuSeconds() - began) / seconds, 1.0);
  }
  // The first round fills the page cache.
  for (int run = 0; run < kRuns; ++run) {
    EW_ASSIGN(const double seconds, ReadSeconds(file.fd, bytes, buffer.data()));
    rates.cached_read_gbps = std::max(rates.cached_read_gbps, gigabytes / seconds);
  }
  return rates;
}

}  // namespace edgewise::schedule
