#include "model/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/checked.h"
#include "base/units.h"

namespace edgewise::model {

namespace {

kernels::KvType TypeOf(KvForm form) {
  return form == KvForm::kF16    ? kernels::KvType::kF16
         : form == KvForm::kInt8 ? kernels::KvType::kInt8
                                 : kernels::KvType::kInt4;
}

}  // namespace

std::string_view KvFormName(KvForm form) {
  constexpr std::string_view kNames[] = {"f32", "f16", "int8", "int4"};
  return kNames[static_cast<size_t>(form)];
}

Result<KvForm> ParseKvForm(std::string_view text) {
  for (const KvForm form : {KvForm::kF32, KvForm::kF16, KvForm::kInt8, KvForm::kInt4}) {
    if (text == KvFormName(form)) return form;
  }
  if (text == "q8_0") return KvForm::kInt8;
  if (text == "q4_0") return KvForm::kInt4;
  return InvalidArgument(
      fmt::format("'{}' is no form of a KV cache; there are f32, f16, int8 and int4", text));
}

Result<KvCache> KvCache::Create(const ModelConfig& config, LayerRange range, int64_t capacity,
                                KvForm form) {
  if (range.begin < 0 || range.end > config.num_layers() || range.begin > range.end ||
      capacity < 1) {
    return InvalidArgument(fmt::format("a KV cache for layers [{}, {}) and {} positions",
                                       range.begin, range.end, capacity));
  }
  const int64_t row_bytes =
      form == KvForm::kF32 ? config.kv_dim() * static_cast<int64_t>(sizeof(float))
                           : kernels::KvRowBytes(TypeOf(form), config.kv_heads, config.head_dim);
  const int64_t dims[] = {2, range.size(), capacity, row_bytes};
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
  cache.form_ = form;
  cache.capacity_ = capacity;
  cache.heads_ = config.kv_heads;
  cache.head_dim_ = config.head_dim;
  cache.row_bytes_ = row_bytes;
  return cache;
}

int64_t KvCache::Offset(int64_t layer, bool value, int64_t row) const {
  const int64_t plane = (layer - range_.begin) * 2 + (value ? 1 : 0);
  return (plane * capacity_ + row) * row_bytes_;
}

void KvCache::Truncate(int64_t length) { length_ = std::clamp<int64_t>(length, 0, length_); }

void KvCache::CopyFrom(const KvCache& other) {
  for (int64_t layer = range_.begin; layer < range_.end; ++layer) {
    for (bool value : {false, true}) {
      std::memcpy(storage_.as<char>() + Offset(layer, value, 0),
                  other.storage_.as<char>() + other.Offset(layer, value, 0),
                  static_cast<size_t>(other.length_ * row_bytes_));
    }
  }
  length_ = other.length_;
}

void KvCache::Write(ExecContext& ctx, int64_t layer, int64_t at, int64_t rows, const float* k,
                    const float* v) {
  for (bool value : {false, true}) {
    const float* from = value ? v : k;
    auto* to = storage_.as<uint8_t>() + Offset(layer, value, at);
    if (form_ == KvForm::kF32) {
      std::memcpy(to, from, static_cast<size_t>(rows * row_bytes_));
    } else {
      kernels::KvEncode(ctx, TypeOf(form_), rows, heads_, head_dim_, from, heads_ * head_dim_, to);
    }
  }
}

KvCache::View KvCache::Read(ExecContext& ctx, int64_t layer, int64_t from, int64_t rows,
                            float* scratch) const {
  const auto* k = storage_.as<uint8_t>() + Offset(layer, false, from);
  const auto* v = storage_.as<uint8_t>() + Offset(layer, true, from);
  if (form_ == KvForm::kF32) {
    return {reinterpret_cast<const float*>(k), reinterpret_cast<const float*>(v)};
  }
  float* values = scratch + rows * heads_ * head_dim_;
  kernels::KvDecode(ctx, TypeOf(form_), rows, heads_, head_dim_, k, scratch);
  kernels::KvDecode(ctx, TypeOf(form_), rows, heads_, head_dim_, v, values);
  return {scratch, values};
}

std::optional<KvCache::Encoded> KvCache::EncodedRows(int64_t layer) const {
  if (form_ == KvForm::kF32) return std::nullopt;
  const auto* rows = storage_.as<uint8_t>();
  return Encoded{TypeOf(form_), rows + Offset(layer, false, 0), rows + Offset(layer, true, 0)};
}

}  // namespace edgewise::model
