// Owning, 64-byte aligned, uninitialised storage. Movable, not copyable. Large buffers come
// straight from mmap, so that freeing them returns the pages to the system and peak RSS is what is
// in use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace edgewise {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBuffer() = default;
  // Throws std::bad_alloc when the system has no memory: callers size buffers from checked plans.
  explicit AlignedBuffer(size_t bytes);
  ~AlignedBuffer() { Reset(); }
  AlignedBuffer(AlignedBuffer&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& o) noexcept {
    if (this != &o) {
      Reset();
      data_ = std::exchange(o.data_, nullptr);
      size_ = std::exchange(o.size_, 0);
    }
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  void* data() { return data_; }
  const void* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() {
    return static_cast<T*>(data_);
  }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }
  void Reset();
  void Zero();

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// An owning float array; the commonest buffer of all.
class FloatBuffer {
 public:
  FloatBuffer() = default;
  explicit FloatBuffer(int64_t n) : buffer_(static_cast<size_t>(n) * sizeof(float)) {}
  static FloatBuffer Zeros(int64_t n) {
    FloatBuffer b(n);
    b.buffer_.Zero();
    return b;
  }
  float* data() { return buffer_.as<float>(); }
  const float* data() const { return buffer_.as<float>(); }
  int64_t size() const { return static_cast<int64_t>(buffer_.size() / sizeof(float)); }
  bool empty() const { return size() == 0; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }
  std::span<float> span() { return {data(), static_cast<size_t>(size())}; }
  std::span<const float> span() const { return {data(), static_cast<size_t>(size())}; }
  void Zero() { buffer_.Zero(); }

 private:
  AlignedBuffer buffer_;
};

}  // namespace edgewise
