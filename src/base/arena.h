// Bump allocator for one lifetime (model, session, step): allocate many, free all at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"

namespace edgewise {

class Arena {
 public:
  explicit Arena(size_t block_bytes = size_t{1} << 20) : block_bytes_(block_bytes) {}
  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  // Uninitialised, 64-byte aligned; valid until Reset or Rewind past it.
  void* Allocate(size_t bytes);
  template <typename T>
  std::span<T> AllocateSpan(int64_t n) {
    return {static_cast<T*>(Allocate(static_cast<size_t>(n) * sizeof(T))), static_cast<size_t>(n)};
  }
  float* Floats(int64_t n) { return AllocateSpan<float>(n).data(); }

  struct Mark {
    size_t block, used;
  };
  Mark mark() const { return {current_, blocks_.empty() ? 0 : used_}; }
  // Frees everything allocated since `m`; blocks are kept for reuse.
  void Rewind(Mark m) {
    current_ = m.block;
    used_ = m.used;
  }
  void Reset() { Rewind({0, 0}); }
  // Gives all blocks back to the system.
  void Release();

  size_t reserved_bytes() const { return reserved_; }

 private:
  size_t block_bytes_;
  std::vector<AlignedBuffer> blocks_;
  size_t current_ = 0, used_ = 0, reserved_ = 0;
};

}  // namespace edgewise
