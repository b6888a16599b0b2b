#include "base/reserved_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>

#include "base/huge_pages.h"

namespace edgewise {
namespace {
constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
}

int64_t ReservedMemory::Granularity() {
  static const int64_t bytes = std::max<int64_t>(4096, ::sysconf(_SC_PAGESIZE));
  return bytes;
}

Result<ReservedMemory> ReservedMemory::Reserve(int64_t bytes) {
  assert(bytes > 0 && bytes % Granularity() == 0);
  void* p = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE, kFlags, -1, 0);
  if (p == MAP_FAILED) return OutOfMemory("there are no addresses left for the weights");
  return ReservedMemory(p, bytes);
}

ReservedMemory::~ReservedMemory() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(size_));
}

Status ReservedMemory::Commit(int64_t offset, int64_t bytes) {
  assert(offset >= 0 && offset % Granularity() == 0 && bytes % Granularity() == 0 &&
         offset + bytes <= size_);
  if (::mprotect(data() + offset, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE) != 0) {
    return OutOfMemory("there is no memory for the weights");
  }
  PreferHugePages(data() + offset, static_cast<size_t>(bytes));
  return Status::Ok();
}

void ReservedMemory::Drop(int64_t offset, int64_t bytes) {
  assert(offset >= 0 && offset + bytes <= size_);
  // Mapped anew rather than advised away, so that it does not count as data either (RLIMIT_DATA).
  void* p =
      ::mmap(data() + offset, static_cast<size_t>(bytes), PROT_NONE, kFlags | MAP_FIXED, -1, 0);
  static_cast<void>(p);
  assert(p == data() + offset);
}

}  // namespace edgewise
