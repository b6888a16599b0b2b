#include "model/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/checked.h"
#include "base/units.h"

namespace edgewise::model {

Result<KvCache> KvCache::Create(const ModelConfig& config, LayerRange range, int64_t capacity,
                                DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kF16) {
    return InvalidArgument(
        fmt::format("a KV cache of type {} is not supported (F32 and F16 are)", DTypeName(dtype)));
  }
  if (range.begin < 0 || range.end > config.num_layers() || range.begin > range.end ||
      capacity < 1) {
    return InvalidArgument(fmt::format("a KV cache for layers [{}, {}) and {} positions",
                                       range.begin, range.end, capacity));
  }
  const int64_t dims[] = {2, range.size(), capacity, config.kv_dim(),
                          static_cast<int64_t>(DTypeBytes(dtype))};
  const std::optional<int64_t> bytes = CheckedProduct(dims);
  const auto too_large = [&] {
    return OutOfMemory(
        fmt::format("the KV cache for a context of {} tokens needs {}: ask for a shorter context",
                    capacity, bytes ? FormatBytes(*bytes) : "more than can be addressed"));
  };
  if (!bytes || *bytes > (int64_t{1} << 46)) return too_large();
  KvCache cache;
  try {
    cache.storage_ = AlignedBuffer(static_cast<size_t>(*bytes));
  } catch (const std::bad_alloc&) {
    return too_large();
  }
  cache.range_ = range;
  cache.dtype_ = dtype;
  cache.capacity_ = capacity;
  cache.kv_dim_ = config.kv_dim();
  return cache;
}

int64_t KvCache::Offset(int64_t layer, bool value, int64_t row) const {
  const int64_t plane = (layer - range_.begin) * 2 + (value ? 1 : 0);
  return (plane * capacity_ + row) * kv_dim_ * static_cast<int64_t>(DTypeBytes(dtype_));
}

void KvCache::Truncate(int64_t length) { length_ = std::clamp<int64_t>(length, 0, length_); }

void KvCache::CopyFrom(const KvCache& other) {
  for (int64_t layer = range_.begin; layer < range_.end; ++layer) {
    for (bool value : {false, true}) {
      const int64_t bytes = other.length_ * kv_dim_ * static_cast<int64_t>(DTypeBytes(dtype_));
      std::memcpy(storage_.as<char>() + Offset(layer, value, 0),
                  other.storage_.as<char>() + other.Offset(layer, value, 0),
                  static_cast<size_t>(bytes));
    }
  }
  length_ = other.length_;
}

void KvCache::Write(int64_t layer, int64_t at, int64_t rows, const float* k, const float* v) {
  ConvertFromF32(dtype_, k, storage_.as<char>() + Offset(layer, false, at), rows * kv_dim_);
  ConvertFromF32(dtype_, v, storage_.as<char>() + Offset(layer, true, at), rows * kv_dim_);
}

KvCache::View KvCache::Read(int64_t layer, int64_t from, int64_t rows, float* scratch) const {
  const char* k = storage_.as<char>() + Offset(layer, false, from);
  const char* v = storage_.as<char>() + Offset(layer, true, from);
  if (dtype_ == DType::kF32) {
    return {reinterpret_cast<const float*>(k), reinterpret_cast<const float*>(v)};
  }
  const int64_t count = rows * kv_dim_;
  ConvertToF32(dtype_, k, scratch, count);
  ConvertToF32(dtype_, v, scratch + count, count);
  return {scratch, scratch + count};
}

}  // namespace edgewise::model
