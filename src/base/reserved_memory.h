// A range of addresses without memory behind it, of which parts get memory and give it back: what
// comes and goes piece by piece keeps its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace edgewise {

class ReservedMemory {
 public:
  // What offsets and lengths are multiples of: a page, and at least 4096 bytes.
  static int64_t Granularity();

  ReservedMemory() = default;
  // `bytes`: a multiple of Granularity(). Error: there are no addresses left.
  static Result<ReservedMemory> Reserve(int64_t bytes);
  ~ReservedMemory();
  ReservedMemory(ReservedMemory&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  ReservedMemory& operator=(ReservedMemory&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }

  // Zeros from now on, resident as they are touched; kOutOfMemory where the system has no more.
  Status Commit(int64_t offset, int64_t bytes);
  // Gives the memory back: the addresses must not be touched.
  void Drop(int64_t offset, int64_t bytes);

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  int64_t size() const { return size_; }

 private:
  ReservedMemory(void* data, int64_t size) : data_(data), size_(size) {}
  void* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace edgewise
