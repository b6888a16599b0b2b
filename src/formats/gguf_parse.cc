// The metadata and tensor table of a GGUF file.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/checked.h"
#include "formats/gguf.h"
#include "formats/printable.h"

namespace edgewise::formats {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxStringBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxArrayCount = uint64_t{1} << 30;
constexpr uint64_t kMaxTensorNameBytes = 63;  // ggml keeps 64 with the terminating NUL
constexpr uint32_t kMaxDims = 4;
constexpr std::string_view kAlignmentKey = "general.alignment";

// Bytes of a value of fixed size; 0 for strings, arrays and numbers that are no type.
uint64_t FixedSize(uint32_t type) {
  constexpr uint8_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(kSizes) ? kSizes[type] : 0;
}

// Reads little-endian numbers and strings, never past the end.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  Result<std::span<const std::byte>> Take(uint64_t n, std::string_view what) {
    if (n > left()) {
      return BadInput(
          fmt::format("{} at byte {} needs {} bytes, but the file ends after {}: it "
                      "was cut short",
                      what, position_, n, left()));
    }
    const auto taken = bytes_.subspan(position_, static_cast<size_t>(n));
    position_ += static_cast<size_t>(n);
    return taken;
  }

  template <typename T>
  Result<T> Number(std::string_view what) {
    EW_ASSIGN(const auto raw, Take(sizeof(T), what));
    T value;
    std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }

  Result<std::string_view> String(std::string_view what, uint64_t max_bytes) {
    EW_ASSIGN(const uint64_t n, Number<uint64_t>(what));
    if (n > max_bytes) {
      return BadInput(fmt::format("{} at byte {}: a string of {} bytes is too long, limit {}", what,
                                  position_ - 8, n, max_bytes));
    }
    EW_ASSIGN(const auto raw, Take(n, what));
    return std::string_view(reinterpret_cast<const char*>(raw.data()), raw.size());
  }

 private:
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

static_assert(std::endian::native == std::endian::little, "the files are little endian");

template <typename Wide, typename T>
Status ReadScalar(Reader& in, const std::string& what, GgufValue& value) {
  EW_ASSIGN(const T number, in.Number<T>(what));
  value.scalar = static_cast<Wide>(number);
  return Status::Ok();
}

Status ParseArray(Reader& in, const std::string& what, GgufValue& value) {
  EW_ASSIGN(const uint32_t type, in.Number<uint32_t>(what));
  EW_ASSIGN(value.count, in.Number<uint64_t>(what));
  const bool strings = type == static_cast<uint32_t>(GgufValueType::kString);
  if (!strings && FixedSize(type) == 0) {
    return BadInput(fmt::format("{}: {} is no type for the elements of an array", what, type));
  }
  value.element_type = static_cast<GgufValueType>(type);
  // A string takes at least its length, so the count is bounded by what is left either way.
  const uint64_t least = strings ? 8 : FixedSize(type);
  if (value.count > kMaxArrayCount || value.count > in.left() / least) {
    return BadInput(fmt::format("{}: an array of {} elements is too long for the {} bytes left",
                                what, value.count, in.left()));
  }
  if (!strings) {
    EW_ASSIGN(value.elements, in.Take(value.count * least, what));
    return Status::Ok();
  }
  value.strings.reserve(static_cast<size_t>(value.count));
  for (uint64_t i = 0; i < value.count; ++i) {
    EW_ASSIGN(const std::string_view text, in.String(what, kMaxStringBytes));
    value.strings.push_back(text);
  }
  return Status::Ok();
}

Status ParseValue(Reader& in, const std::string& what, GgufValue& value) {
  EW_ASSIGN(const uint32_t type, in.Number<uint32_t>(what));
  value.type = static_cast<GgufValueType>(type);
  switch (value.type) {
    case GgufValueType::kU8:
      return ReadScalar<uint64_t, uint8_t>(in, what, value);
    case GgufValueType::kI8:
      return ReadScalar<int64_t, int8_t>(in, what, value);
    case GgufValueType::kU16:
      return ReadScalar<uint64_t, uint16_t>(in, what, value);
    case GgufValueType::kI16:
      return ReadScalar<int64_t, int16_t>(in, what, value);
    case GgufValueType::kU32:
      return ReadScalar<uint64_t, uint32_t>(in, what, value);
    case GgufValueType::kI32:
      return ReadScalar<int64_t, int32_t>(in, what, value);
    case GgufValueType::kF32:
      return ReadScalar<double, float>(in, what, value);
    case GgufValueType::kU64:
      return ReadScalar<uint64_t, uint64_t>(in, what, value);
    case GgufValueType::kI64:
      return ReadScalar<int64_t, int64_t>(in, what, value);
    case GgufValueType::kF64:
      return ReadScalar<double, double>(in, what, value);
    case GgufValueType::kBool: {
      EW_ASSIGN(const uint8_t byte, in.Number<uint8_t>(what));
      value.scalar = byte != 0;
      return Status::Ok();
    }
    case GgufValueType::kString: {
      EW_ASSIGN(const std::string_view text, in.String(what, kMaxStringBytes));
      value.scalar = text;
      return Status::Ok();
    }
    case GgufValueType::kArray:
      return ParseArray(in, what, value);
  }
  return BadInput(fmt::format("{}: {} is no value type", what, type));
}

Status ParseMetadata(Reader& in, uint64_t count, GgufHeader& header) {
  // The shortest pair is an empty key, a type and one byte.
  if (count > in.left() / 13) {
    return BadInput(
        fmt::format("counts: {} metadata entries do not fit the {} bytes left", count, in.left()));
  }
  std::unordered_set<std::string_view> keys;
  for (uint64_t i = 0; i < count; ++i) {
    EW_ASSIGN(const std::string_view key,
              in.String(fmt::format("metadata key {}", i), kMaxKeyBytes));
    if (!keys.insert(key).second) {
      return BadInput(fmt::format("duplicate key {} in the metadata", Printable(key)));
    }
    GgufValue value;
    EW_RETURN_IF_ERROR(ParseValue(in, fmt::format("metadata {}", Printable(key)), value));
    if (key == kAlignmentKey) {
      if (value.type != GgufValueType::kU32) {
        return BadInput(fmt::format("{} must be a u32, not a {}", kAlignmentKey,
                                    GgufValueTypeName(value.type)));
      }
      header.alignment = std::get<uint64_t>(value.scalar);
      if (!std::has_single_bit(header.alignment)) {
        return BadInput(
            fmt::format("{} {} is not a power of two", kAlignmentKey, header.alignment));
      }
    }
    header.metadata.emplace_back(std::string(key), std::move(value));
  }
  return Status::Ok();
}

// Shape and size of one tensor from the numbers of the file (row length first).
Status SizeTensor(const GgmlTypeInfo& info, std::span<const int64_t> dims, const std::string& what,
                  GgufTensor& tensor) {
  for (const int64_t dim : dims) {
    if (dim < 0) return BadInput(fmt::format("{}: negative dimension {}", what, dim));
  }
  const std::optional<int64_t> elements = CheckedProduct(dims);
  if (!elements) {
    return BadInput(fmt::format("{}: the element count of {} overflows", what, ShapeText(dims)));
  }
  const int64_t row = dims.empty() ? 1 : dims[0];
  if (row % info.block_elements != 0) {
    return BadInput(fmt::format("{}: a row of {} is no multiple of the {} elements of a {} block",
                                what, row, info.block_elements, info.name));
  }
  const std::optional<int64_t> bytes =
      CheckedMul(*elements / info.block_elements, info.block_bytes);
  if (!bytes) return BadInput(fmt::format("{}: the size of {} overflows", what, ShapeText(dims)));
  tensor.bytes = static_cast<uint64_t>(*bytes);
  tensor.shape.assign(dims.rbegin(), dims.rend());
  // With a zero among the dims only one of the two orders may overflow on the way.
  if (!CheckedProduct(tensor.shape)) {
    return BadInput(fmt::format("{}: the element count of {} overflows", what, ShapeText(dims)));
  }
  return Status::Ok();
}

Status ParseTensor(Reader& in, uint64_t i, GgufTensor& tensor) {
  EW_ASSIGN(const std::string_view name,
            in.String(fmt::format("name of tensor {}", i), kMaxStringBytes));
  const std::string what = fmt::format("tensor {}", Printable(name));
  if (name.size() > kMaxTensorNameBytes) {
    return BadInput(fmt::format("{}: a tensor name of {} bytes is too long, limit {}", what,
                                name.size(), kMaxTensorNameBytes));
  }
  tensor.name = name;
  EW_ASSIGN(const uint32_t rank, in.Number<uint32_t>(what));
  if (rank > kMaxDims) {
    return BadInput(fmt::format("{}: {} dimensions, limit {}", what, rank, kMaxDims));
  }
  int64_t dims[kMaxDims] = {};
  for (uint32_t d = 0; d < rank; ++d) {
    EW_ASSIGN(dims[d], in.Number<int64_t>(what));
  }
  EW_ASSIGN(const uint32_t type, in.Number<uint32_t>(what));
  const GgmlTypeInfo* info = FindGgmlType(type);
  if (info == nullptr) return BadInput(fmt::format("{}: {} is no tensor type", what, type));
  tensor.type = info->type;
  EW_ASSIGN(tensor.offset, in.Number<uint64_t>(what));  // relative to the data; made absolute later
  return SizeTensor(*info, std::span<const int64_t>(dims, rank), what, tensor);
}

// Tensors follow each other in order, each padded to the alignment. The padding of the last one may
// be missing.
Status PlaceTensors(GgufHeader& header, uint64_t position, uint64_t file_bytes) {
  const auto aligned = [&](uint64_t n) -> std::optional<uint64_t> {
    const std::optional<uint64_t> raised = CheckedAdd(n, header.alignment - 1);
    return raised ? std::optional(*raised & ~(header.alignment - 1)) : std::nullopt;
  };
  const std::optional<uint64_t> data = aligned(position);
  if (!data || (*data > file_bytes && !header.tensors.empty())) {
    return BadInput(
        fmt::format("the tensor data would begin after the end of the file ({} bytes): "
                    "it was cut short",
                    file_bytes));
  }
  header.data_offset = std::min(*data, file_bytes);
  uint64_t expected = 0;
  for (GgufTensor& tensor : header.tensors) {
    const std::string what = fmt::format("tensor {}", Printable(tensor.name));
    if (tensor.offset != expected) {
      return BadInput(
          fmt::format("{}: its offset is {}, but the running sum of the tensors before "
                      "it, aligned to {}, is {}",
                      what, tensor.offset, header.alignment, expected));
    }
    const std::optional<uint64_t> end = CheckedAdd(tensor.offset, tensor.bytes);
    if (!end || *end > file_bytes - header.data_offset) {
      return BadInput(
          fmt::format("{}: its {} bytes at data offset {} end after the end of the "
                      "file: it was cut short",
                      what, tensor.bytes, tensor.offset));
    }
    const std::optional<uint64_t> next = aligned(*end);
    if (!next) return BadInput(what + ": its offset overflows");
    expected = *next;
    tensor.offset += header.data_offset;
  }
  return Status::Ok();
}

}  // namespace

std::string_view GgufValueTypeName(GgufValueType type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  const auto i = static_cast<size_t>(type);
  return i < std::size(kNames) ? kNames[i] : "value of unknown type";
}

Result<GgufHeader> ParseGguf(std::span<const std::byte> file) {
  Reader in(file);
  EW_ASSIGN(const auto magic, in.Take(4, "magic"));
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
    return BadInput("magic: does not start with \"GGUF\"; not a GGUF file?");
  }
  GgufHeader header;
  EW_ASSIGN(header.version, in.Number<uint32_t>("version"));
  if (header.version != 2 && header.version != 3) {
    const bool swapped = header.version != 0 && (header.version & 0xffff) == 0;
    return BadInput(fmt::format("version {} is not supported, only 2 and 3{}", header.version,
                                swapped ? "; this looks like a big-endian file" : ""));
  }
  EW_ASSIGN(const uint64_t tensor_count, in.Number<uint64_t>("tensor count"));
  EW_ASSIGN(const uint64_t kv_count, in.Number<uint64_t>("metadata count"));
  // The shortest tensor entry has an empty name, no dimensions, a type and an offset.
  if (tensor_count > in.left() / 24) {
    return BadInput(
        fmt::format("counts: {} tensors do not fit the {} bytes left", tensor_count, in.left()));
  }
  EW_RETURN_IF_ERROR(ParseMetadata(in, kv_count, header));
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensor tensor;
    EW_RETURN_IF_ERROR(ParseTensor(in, i, tensor));
    if (!names.insert(tensor.name).second) {
      return BadInput(fmt::format("duplicate tensor name {}", Printable(tensor.name)));
    }
    header.tensors.push_back(std::move(tensor));
  }
  EW_RETURN_IF_ERROR(PlaceTensors(header, in.position(), file.size()));
  return header;
}

}  // namespace edgewise::formats
