#include "formats/gguf.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <type_traits>

#include "base/aligned_buffer.h"
#include "formats/printable.h"

namespace edgewise::formats {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();

template <typename T>
T Element(std::span<const std::byte> elements, uint64_t i) {
  T value;
  std::memcpy(&value, elements.data() + i * sizeof(T), sizeof value);
  return value;
}

// Element i of an array of integers; nothing for other types and for what does not fit.
std::optional<int64_t> IntElement(const GgufValue& array, uint64_t i) {
  switch (array.element_type) {
    case GgufValueType::kU8:
      return Element<uint8_t>(array.elements, i);
    case GgufValueType::kI8:
      return Element<int8_t>(array.elements, i);
    case GgufValueType::kU16:
      return Element<uint16_t>(array.elements, i);
    case GgufValueType::kI16:
      return Element<int16_t>(array.elements, i);
    case GgufValueType::kU32:
      return Element<uint32_t>(array.elements, i);
    case GgufValueType::kI32:
      return Element<int32_t>(array.elements, i);
    case GgufValueType::kI64:
      return Element<int64_t>(array.elements, i);
    case GgufValueType::kU64: {
      const auto value = Element<uint64_t>(array.elements, i);
      if (value > static_cast<uint64_t>(kMaxInt)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<int64_t> ScalarInt(const GgufValue& value) {
  if (const auto* u = std::get_if<uint64_t>(&value.scalar)) {
    if (*u > static_cast<uint64_t>(kMaxInt)) return std::nullopt;
    return static_cast<int64_t>(*u);
  }
  if (const auto* i = std::get_if<int64_t>(&value.scalar)) return *i;
  return std::nullopt;
}

}  // namespace

void GgufFile::Index() {
  for (size_t i = 0; i < header_.metadata.size(); ++i) {
    keys_.emplace(header_.metadata[i].first, i);
  }
  for (size_t i = 0; i < header_.tensors.size(); ++i) names_.emplace(header_.tensors[i].name, i);
}

Result<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path, MapMode mode) {
  EW_ASSIGN(auto mapped, MappedFile::Open(path, mode));
  std::shared_ptr<GgufFile> file(new GgufFile);
  EW_ASSIGN(file->header_, ParseGguf(mapped->bytes()).WithContext(path));
  file->path_ = path;
  file->bytes_ = mapped->bytes();
  file->owner_ = mapped;
  file->mapped_ = mapped;
  file->Index();
  EW_ASSIGN(const int64_t parts, file->IntOr("split.count", 1));
  if (parts > 1) {
    return Unsupported(fmt::format(
        "{} is one of {} parts of a model; join them first: llama-gguf-split --merge {} OUT.gguf",
        path, parts, path));
  }
  return std::shared_ptr<const GgufFile>(std::move(file));
}

Result<std::shared_ptr<const GgufFile>> GgufFile::FromBytes(std::span<const std::byte> bytes,
                                                            std::shared_ptr<const void> owner,
                                                            std::string name) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  EW_ASSIGN(file->header_, ParseGguf(bytes).WithContext(name));
  file->path_ = std::move(name);
  file->bytes_ = bytes;
  file->owner_ = std::move(owner);
  file->Index();
  return std::shared_ptr<const GgufFile>(std::move(file));
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto it = keys_.find(key);
  return it == keys_.end() ? nullptr : &header_.metadata[it->second].second;
}

Status GgufFile::Wrong(std::string_view key, std::string_view wanted) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return BadInput(fmt::format("{}: metadata {} is missing", path_, Printable(key)));
  }
  std::string found(GgufValueTypeName(value->type));
  if (value->type == GgufValueType::kArray) {
    found += fmt::format(" of {} {}", value->count, GgufValueTypeName(value->element_type));
  }
  return BadInput(fmt::format("{}: metadata {} must be {}, but is {} (or too large)", path_,
                              Printable(key), wanted, found));
}

Result<std::string> GgufFile::String(std::string_view key) const {
  const GgufValue* value = Find(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string_view>(&value->scalar);
  if (text == nullptr) return Wrong(key, "a string");
  return std::string(*text);
}

Result<int64_t> GgufFile::Int(std::string_view key) const {
  const GgufValue* value = Find(key);
  const std::optional<int64_t> number = value == nullptr ? std::nullopt : ScalarInt(*value);
  if (!number) return Wrong(key, "an integer");
  return *number;
}

Result<double> GgufFile::Float(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr) {
    if (const auto* number = std::get_if<double>(&value->scalar)) return *number;
    if (const auto integer = ScalarInt(*value)) return static_cast<double>(*integer);
  }
  return Wrong(key, "a number");
}

Result<bool> GgufFile::Bool(std::string_view key) const {
  const GgufValue* value = Find(key);
  const auto* flag = value == nullptr ? nullptr : std::get_if<bool>(&value->scalar);
  if (flag == nullptr) return Wrong(key, "a bool");
  return *flag;
}

Result<std::string> GgufFile::StringOr(std::string_view key, std::string fallback) const {
  return Has(key) ? String(key) : Result<std::string>(std::move(fallback));
}
Result<int64_t> GgufFile::IntOr(std::string_view key, int64_t fallback) const {
  return Has(key) ? Int(key) : Result<int64_t>(fallback);
}
Result<double> GgufFile::FloatOr(std::string_view key, double fallback) const {
  return Has(key) ? Float(key) : Result<double>(fallback);
}
Result<bool> GgufFile::BoolOr(std::string_view key, bool fallback) const {
  return Has(key) ? Bool(key) : Result<bool>(fallback);
}

Result<std::vector<std::string>> GgufFile::Strings(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || value->type != GgufValueType::kArray ||
      value->element_type != GgufValueType::kString) {
    return Wrong(key, "an array of strings");
  }
  return std::vector<std::string>(value->strings.begin(), value->strings.end());
}

Result<std::vector<int64_t>> GgufFile::Ints(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Wrong(key, "an array of integers");
  std::vector<int64_t> numbers;
  if (const auto single = ScalarInt(*value)) {
    numbers.push_back(*single);
    return numbers;
  }
  if (value->type != GgufValueType::kArray) return Wrong(key, "an array of integers");
  numbers.reserve(static_cast<size_t>(value->count));
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto number = IntElement(*value, i);
    if (!number) return Wrong(key, "an array of integers");
    numbers.push_back(*number);
  }
  return numbers;
}

Result<std::vector<float>> GgufFile::Floats(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || value->type != GgufValueType::kArray) {
    return Wrong(key, "an array of floats");
  }
  std::vector<float> numbers(static_cast<size_t>(value->count));
  for (uint64_t i = 0; i < value->count; ++i) {
    if (value->element_type == GgufValueType::kF32) {
      numbers[i] = Element<float>(value->elements, i);
    } else if (value->element_type == GgufValueType::kF64) {
      numbers[i] = static_cast<float>(Element<double>(value->elements, i));
    } else {
      return Wrong(key, "an array of floats");
    }
  }
  return numbers;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = names_.find(name);
  return it == names_.end() ? nullptr : &header_.tensors[it->second];
}

Result<const GgufTensor*> GgufFile::Tensor(std::string_view name) const {
  const GgufTensor* tensor = FindTensor(name);
  if (tensor == nullptr) {
    return NotFound(fmt::format("{}: there is no tensor {}", path_, Printable(name)));
  }
  return tensor;
}

std::span<const std::byte> GgufFile::Bytes(const GgufTensor& tensor) const {
  return bytes_.subspan(static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.bytes));
}

Result<HostTensor> GgufFile::Dense(const GgufTensor& tensor) const {
  const GgmlTypeInfo& info = InfoOf(tensor.type);
  if (!info.dtype) {
    return Unsupported(fmt::format("{}: tensor {} is {}, not dense; dequantise it first", path_,
                                   Printable(tensor.name), info.name));
  }
  return HostTensor{{*info.dtype, tensor.shape, Bytes(tensor).data()}, owner_};
}

Status GgufFile::Dequantize(const GgufTensor& tensor, int64_t first, int64_t count,
                            std::span<float> out) const {
  const GgmlTypeInfo& info = InfoOf(tensor.type);
  const int64_t row = tensor.row_elements();
  const int64_t rows = row == 0 ? 0 : tensor.elements() / row;
  if (first < 0 || count < 0 || first > rows || count > rows - first ||
      static_cast<int64_t>(out.size()) != count * row) {
    return InvalidArgument(
        fmt::format("{}: tensor {} has {} rows of {}; {} rows from {} into {} "
                    "floats were asked for",
                    path_, Printable(tensor.name), rows, row, count, first, out.size()));
  }
  const auto row_bytes = static_cast<size_t>(row / info.block_elements * info.block_bytes);
  return DequantizeGgml(tensor.type,
                        Bytes(tensor).subspan(static_cast<size_t>(first) * row_bytes,
                                              static_cast<size_t>(count) * row_bytes),
                        out)
      .WithContext(fmt::format("{}: tensor {}", path_, Printable(tensor.name)));
}

Result<HostTensor> GgufFile::DequantizeAll(const GgufTensor& tensor) const {
  const int64_t elements = tensor.elements();
  // Blocks cost at least 2 bits an element, so this is bounded by a multiple of the file.
  const auto buffer = std::make_shared<FloatBuffer>(elements);
  if (elements != 0) {
    EW_RETURN_IF_ERROR(Dequantize(tensor, 0, elements / tensor.row_elements(), buffer->span()));
  }
  return HostTensor{{DType::kF32, tensor.shape, buffer->data()}, buffer};
}

void GgufFile::Drop(const GgufTensor& tensor) const {
  if (mapped_ == nullptr) return;
  mapped_->Drop(static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.bytes));
}

}  // namespace edgewise::formats
