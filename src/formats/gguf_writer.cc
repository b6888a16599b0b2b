#include "formats/gguf_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "base/checked.h"
#include "formats/printable.h"
#include "io/atomic_file.h"

namespace edgewise::formats {
namespace {

template <typename T>
void Append(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof bytes);
}

void AppendString(std::string& out, std::string_view text) {
  Append(out, static_cast<uint64_t>(text.size()));
  out += text;
}

template <typename T>
std::string Encoded(T value) {
  std::string out;
  Append(out, value);
  return out;
}

std::string ArrayHead(GgufValueType type, size_t count) {
  std::string out;
  Append(out, static_cast<uint32_t>(type));
  Append(out, static_cast<uint64_t>(count));
  return out;
}

Status WritePadding(WritableFile& file, int64_t bytes) {
  const std::vector<std::byte> zeros(static_cast<size_t>(bytes));
  return bytes == 0 ? Status::Ok() : file.Append(zeros);
}

// Rows of a dense float tensor, converted a few at a time.
Status ProduceConverted(const HostTensor& tensor, GgmlType type, const ByteSink& sink) {
  constexpr int64_t kChunk = 32768;  // elements; a multiple of every block
  const GgmlTypeInfo& info = InfoOf(type);
  const int64_t total = tensor.view.elements();
  std::vector<float> values(static_cast<size_t>(std::min(kChunk, total)));
  std::vector<std::byte> blocks(static_cast<size_t>(
      CeilDiv(static_cast<int64_t>(values.size()), info.block_elements) * info.block_bytes));
  const auto* source = static_cast<const std::byte*>(tensor.view.data);
  const auto item = static_cast<int64_t>(DTypeBytes(tensor.view.dtype));
  for (int64_t done = 0; done < total; done += kChunk) {
    const int64_t n = std::min(kChunk, total - done);
    const std::span<float> part(values.data(), static_cast<size_t>(n));
    ConvertToF32(tensor.view.dtype, source + done * item, part.data(), n);
    const auto bytes = static_cast<size_t>(n / info.block_elements * info.block_bytes);
    EW_RETURN_IF_ERROR(QuantizeGgml(type, part, std::span(blocks).first(bytes)));
    EW_RETURN_IF_ERROR(sink(std::span(blocks).first(bytes)));
  }
  return Status::Ok();
}

}  // namespace

GgufWriter::GgufWriter(uint32_t alignment) : alignment_(alignment) {
  assert(std::has_single_bit(alignment));
  if (alignment != 32) {
    (void)Put("general.alignment", GgufValueType::kU32, Encoded(alignment));
  }
}

Status GgufWriter::Put(std::string_view key, GgufValueType type, std::string_view payload) {
  if (key.empty() || key.size() > 65535) {
    return InvalidArgument(fmt::format("{} is no metadata key", Printable(key)));
  }
  if (!keys_.insert(std::string(key)).second) {
    return InvalidArgument(fmt::format("metadata {} was set twice", Printable(key)));
  }
  AppendString(kv_, key);
  Append(kv_, static_cast<uint32_t>(type));
  kv_ += payload;
  return Status::Ok();
}

Status GgufWriter::SetString(std::string_view key, std::string_view value) {
  std::string payload;
  AppendString(payload, value);
  return Put(key, GgufValueType::kString, payload);
}
Status GgufWriter::SetU32(std::string_view key, uint32_t value) {
  return Put(key, GgufValueType::kU32, Encoded(value));
}
Status GgufWriter::SetU64(std::string_view key, uint64_t value) {
  return Put(key, GgufValueType::kU64, Encoded(value));
}
Status GgufWriter::SetI32(std::string_view key, int32_t value) {
  return Put(key, GgufValueType::kI32, Encoded(value));
}
Status GgufWriter::SetF32(std::string_view key, float value) {
  return Put(key, GgufValueType::kF32, Encoded(value));
}
Status GgufWriter::SetBool(std::string_view key, bool value) {
  return Put(key, GgufValueType::kBool, Encoded(static_cast<uint8_t>(value)));
}

Status GgufWriter::SetStrings(std::string_view key, std::span<const std::string> values) {
  std::string payload = ArrayHead(GgufValueType::kString, values.size());
  for (const std::string& value : values) AppendString(payload, value);
  return Put(key, GgufValueType::kArray, payload);
}
Status GgufWriter::SetI32s(std::string_view key, std::span<const int32_t> values) {
  std::string payload = ArrayHead(GgufValueType::kI32, values.size());
  for (const int32_t value : values) Append(payload, value);
  return Put(key, GgufValueType::kArray, payload);
}
Status GgufWriter::SetF32s(std::string_view key, std::span<const float> values) {
  std::string payload = ArrayHead(GgufValueType::kF32, values.size());
  for (const float value : values) Append(payload, value);
  return Put(key, GgufValueType::kArray, payload);
}

Status GgufWriter::SetValue(std::string_view key, const GgufValue& value) {
  if (key == "general.alignment") return Status::Ok();  // the writer's own
  std::string payload;
  switch (value.type) {
    case GgufValueType::kArray:
      payload = ArrayHead(value.element_type, static_cast<size_t>(value.count));
      for (const std::string_view text : value.strings) AppendString(payload, text);
      payload.append(reinterpret_cast<const char*>(value.elements.data()), value.elements.size());
      break;
    case GgufValueType::kString:
      AppendString(payload, std::get<std::string_view>(value.scalar));
      break;
    case GgufValueType::kBool:
      Append(payload, static_cast<uint8_t>(std::get<bool>(value.scalar)));
      break;
    case GgufValueType::kF32:
      Append(payload, static_cast<float>(std::get<double>(value.scalar)));
      break;
    case GgufValueType::kF64:
      Append(payload, std::get<double>(value.scalar));
      break;
    case GgufValueType::kU8:
      Append(payload, static_cast<uint8_t>(std::get<uint64_t>(value.scalar)));
      break;
    case GgufValueType::kU16:
      Append(payload, static_cast<uint16_t>(std::get<uint64_t>(value.scalar)));
      break;
    case GgufValueType::kU32:
      Append(payload, static_cast<uint32_t>(std::get<uint64_t>(value.scalar)));
      break;
    case GgufValueType::kU64:
      Append(payload, std::get<uint64_t>(value.scalar));
      break;
    case GgufValueType::kI8:
      Append(payload, static_cast<int8_t>(std::get<int64_t>(value.scalar)));
      break;
    case GgufValueType::kI16:
      Append(payload, static_cast<int16_t>(std::get<int64_t>(value.scalar)));
      break;
    case GgufValueType::kI32:
      Append(payload, static_cast<int32_t>(std::get<int64_t>(value.scalar)));
      break;
    case GgufValueType::kI64:
      Append(payload, std::get<int64_t>(value.scalar));
      break;
  }
  return Put(key, value.type, payload);
}

Status GgufWriter::AddTensor(std::string name, GgmlType type, std::vector<int64_t> shape,
                             TensorProducer producer) {
  const GgmlTypeInfo& info = InfoOf(type);
  const std::optional<int64_t> elements = CheckedProduct(shape);
  const std::optional<int64_t> bytes =
      elements ? CheckedMul(*elements / info.block_elements, info.block_bytes) : std::nullopt;
  const int64_t row = shape.empty() ? 1 : shape.back();
  if (name.empty() || name.size() > 63 || shape.size() > 4 || !bytes || *bytes > int64_t{1} << 48 ||
      row % info.block_elements != 0) {
    return InvalidArgument(
        fmt::format("tensor {} of shape {} cannot be stored as {} in a GGUF file", Printable(name),
                    ShapeText(shape), info.name));
  }
  if (!names_.insert(name).second) {
    return InvalidArgument(fmt::format("tensor {} was added twice", Printable(name)));
  }
  tensors_.push_back({std::move(name), type, std::move(shape), *bytes, std::move(producer)});
  return Status::Ok();
}

Status GgufWriter::AddTensor(std::string name, GgmlType type, HostTensor tensor) {
  std::vector<int64_t> shape = tensor.view.shape;
  if (InfoOf(type).dtype == tensor.view.dtype) {
    return AddTensor(std::move(name), type, std::move(shape),
                     [tensor = std::move(tensor)](const ByteSink& sink) {
                       return sink({static_cast<const std::byte*>(tensor.view.data),
                                    static_cast<size_t>(tensor.view.bytes())});
                     });
  }
  if (!IsFloatDType(tensor.view.dtype)) {
    return InvalidArgument(fmt::format("tensor {} of type {} cannot be converted to {}",
                                       Printable(name), DTypeName(tensor.view.dtype),
                                       InfoOf(type).name));
  }
  return AddTensor(std::move(name), type, std::move(shape),
                   [tensor = std::move(tensor), type](const ByteSink& sink) {
                     return ProduceConverted(tensor, type, sink);
                   });
}

std::string GgufWriter::Header() const {
  std::string out = "GGUF";
  Append(out, uint32_t{3});
  Append(out, static_cast<uint64_t>(tensors_.size()));
  Append(out, static_cast<uint64_t>(keys_.size()));
  out += kv_;
  int64_t offset = 0;
  for (const TensorSlot& tensor : tensors_) {
    AppendString(out, tensor.name);
    Append(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) Append(out, *dim);
    Append(out, static_cast<uint32_t>(tensor.type));
    Append(out, static_cast<uint64_t>(offset));
    offset += RoundUp(tensor.bytes, alignment_);
  }
  out.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(out.size()), alignment_)), '\0');
  return out;
}

int64_t GgufWriter::FileBytes() const {
  auto total = static_cast<int64_t>(Header().size());
  for (const TensorSlot& tensor : tensors_) total += RoundUp(tensor.bytes, alignment_);
  return total;
}

int64_t GgufWriter::HeaderBytes() const {
  int64_t tensors = 0;
  for (const TensorSlot& tensor : tensors_) tensors += RoundUp(tensor.bytes, alignment_);
  return FileBytes() - tensors;
}

Status GgufWriter::WriteTo(WritableFile& file) const {
  const std::string header = Header();
  EW_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(header))));
  for (const TensorSlot& tensor : tensors_) {
    EW_RETURN_IF_ERROR(ProduceExactly(tensor.name, tensor.bytes, tensor.producer, file));
    EW_RETURN_IF_ERROR(WritePadding(file, RoundUp(tensor.bytes, alignment_) - tensor.bytes));
  }
  return Status::Ok();
}

Status GgufWriter::Write(Env& env, const std::string& path) const {
  EW_ASSIGN(auto file, AtomicFile::Create(env, path));
  EW_RETURN_IF_ERROR(WriteTo(file->file()));
  return file->Commit();
}

}  // namespace edgewise::formats
