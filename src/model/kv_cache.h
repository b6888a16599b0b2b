// Keys and values of one stream, per layer: fp32, fp16, or rounded to 8 or 4 bits per head.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "kernels/packed/kv_quant.h"
#include "model/config.h"
#include "model/lora.h"

namespace edgewise::model {

// Forms of kernels/packed/kv_quant.h, and fp32.
enum class KvForm : uint8_t { kF32, kF16, kInt8, kInt4 };
std::string_view KvFormName(KvForm form);  // "f32", "f16", "int8", "int4"
// These, and what llama.cpp calls its kin: "q8_0", "q4_0". Error: lists them.
Result<KvForm> ParseKvForm(std::string_view text);

class KvCache {
 public:
  // Room for `capacity` positions of the layers in `range`.
  static Result<KvCache> Create(const ModelConfig& config, LayerRange range, int64_t capacity,
                                KvForm form = KvForm::kF32);

  int64_t capacity() const { return capacity_; }
  int64_t length() const { return length_; }
  KvForm form() const { return form_; }
  LayerRange range() const { return range_; }
  int64_t bytes() const { return static_cast<int64_t>(storage_.size()); }

  // Forgets positions >= length.
  void Truncate(int64_t length);
  // Declares the rows written by all layers as part of the stream.
  void Advance(int64_t rows) { length_ += rows; }
  // Takes over the contents of a cache of the same shape (a forked stream).
  void CopyFrom(const KvCache& other);

  // Stores k, v [rows, kv_dim] at positions at, at + 1, ...
  void Write(ExecContext& ctx, int64_t layer, int64_t at, int64_t rows, const float* k,
             const float* v);
  // Positions [from, from + rows) as fp32 [rows, kv_dim]: the cache itself (kF32), else converted
  // into `scratch` (2 * rows * kv_dim floats).
  struct View {
    const float* k;
    const float* v;
  };
  View Read(ExecContext& ctx, int64_t layer, int64_t from, int64_t rows, float* scratch) const;
  // Rows from position 0 on for kernels::KvAttention; nothing for kF32, which it does not know.
  struct Encoded {
    kernels::KvType type;
    const uint8_t* k;
    const uint8_t* v;
  };
  std::optional<Encoded> EncodedRows(int64_t layer) const;

 private:
  KvCache() = default;
  int64_t Offset(int64_t layer, bool value, int64_t row) const;

  AlignedBuffer storage_;
  LayerRange range_;
  KvForm form_ = KvForm::kF32;
  int64_t capacity_ = 0, heads_ = 0, head_dim_ = 0, row_bytes_ = 0, length_ = 0;
};

}  // namespace edgewise::model
