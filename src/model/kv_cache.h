// Keys and values of one stream, per layer, in fp32 or fp16.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "model/config.h"
#include "model/lora.h"
#include "tensor/dtype.h"

namespace edgewise::model {

class KvCache {
 public:
  // Room for `capacity` positions of the layers in `range`. `dtype`: kF32 or kF16.
  static Result<KvCache> Create(const ModelConfig& config, LayerRange range, int64_t capacity,
                                DType dtype = DType::kF32);

  int64_t capacity() const { return capacity_; }
  int64_t length() const { return length_; }
  DType dtype() const { return dtype_; }
  LayerRange range() const { return range_; }
  int64_t bytes() const { return static_cast<int64_t>(storage_.size()); }

  // Forgets positions >= length.
  void Truncate(int64_t length);
  // Declares the rows written by all layers as part of the stream.
  void Advance(int64_t rows) { length_ += rows; }
  // Takes over the contents of a cache of the same shape (a forked stream).
  void CopyFrom(const KvCache& other);

  // Stores k, v [rows, kv_dim] at positions at, at + 1, ...
  void Write(int64_t layer, int64_t at, int64_t rows, const float* k, const float* v);
  // Positions [from, from + rows) as fp32 [rows, kv_dim]: the cache itself (kF32), else converted
  // into `scratch` (2 * rows * kv_dim floats).
  struct View {
    const float* k;
    const float* v;
  };
  View Read(int64_t layer, int64_t from, int64_t rows, float* scratch) const;

 private:
  KvCache() = default;
  int64_t Offset(int64_t layer, bool value, int64_t row) const;

  AlignedBuffer storage_;
  LayerRange range_;
  DType dtype_ = DType::kF32;
  int64_t capacity_ = 0, kv_dim_ = 0, length_ = 0;
};

}  // namespace edgewise::model
