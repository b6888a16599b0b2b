// GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, little
// endian. Every length, count and offset is checked against the bytes that are there before use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "formats/ggml_quants.h"
#include "io/mapped_file.h"
#include "tensor/tensor.h"

namespace edgewise::formats {

// The numbers are those of the files.
enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
std::string_view GgufValueTypeName(GgufValueType type);

// A metadata value. Strings (and the strings of arrays) point into the file.
struct GgufValue {
  GgufValueType type = GgufValueType::kU8;
  // Unsigned types, signed types, float types, bool, string.
  std::variant<std::monostate, uint64_t, int64_t, double, bool, std::string_view> scalar;
  // Arrays only.
  GgufValueType element_type = GgufValueType::kU8;
  uint64_t count = 0;
  std::span<const std::byte> elements;    // packed, little endian, any alignment; not for strings
  std::vector<std::string_view> strings;  // arrays of strings
};

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // math order: {rows, cols} for a matrix, the row last
  uint64_t offset = 0;         // in the file
  uint64_t bytes = 0;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t row_elements() const { return shape.empty() ? 1 : shape.back(); }
};

struct GgufHeader {
  uint32_t version = 0;
  uint64_t alignment = 32;
  uint64_t data_offset = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata;  // in file order
  std::vector<GgufTensor> tensors;                          // in file order
};

// Checks and reads everything but the tensor data of a whole file in memory. The strings of the
// result point into `file`.
Result<GgufHeader> ParseGguf(std::span<const std::byte> file);

class GgufFile {
 public:
  static Result<std::shared_ptr<const GgufFile>> Open(const std::string& path,
                                                      MapMode mode = MapMode::kMap);
  static Result<std::shared_ptr<const GgufFile>> FromBytes(std::span<const std::byte> bytes,
                                                           std::shared_ptr<const void> owner,
                                                           std::string name);

  const std::string& path() const { return path_; }
  const GgufHeader& header() const { return header_; }
  const std::vector<GgufTensor>& tensors() const { return header_.tensors; }

  // Metadata. `Find` gives null when the key is absent. The typed getters are errors when the key
  // is absent or has another type, and name file and key; integers of any width and sign that fit
  // are accepted. The `Or` forms give the default when the key is absent.
  const GgufValue* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  Result<std::string> String(std::string_view key) const;
  Result<int64_t> Int(std::string_view key) const;
  Result<double> Float(std::string_view key) const;  // integers are accepted too
  Result<bool> Bool(std::string_view key) const;
  Result<std::string> StringOr(std::string_view key, std::string fallback) const;
  Result<int64_t> IntOr(std::string_view key, int64_t fallback) const;
  Result<double> FloatOr(std::string_view key, double fallback) const;
  Result<bool> BoolOr(std::string_view key, bool fallback) const;
  Result<std::vector<std::string>> Strings(std::string_view key) const;
  // Arrays of any integer type; a scalar counts as an array of one.
  Result<std::vector<int64_t>> Ints(std::string_view key) const;
  Result<std::vector<float>> Floats(std::string_view key) const;

  // Tensors.
  const GgufTensor* FindTensor(std::string_view name) const;
  Result<const GgufTensor*> Tensor(std::string_view name) const;  // kNotFound names file and tensor
  std::span<const std::byte> Bytes(const GgufTensor& tensor) const;
  // Dense types (F32, F16, BF16, F64, integers) as a view into the file.
  Result<HostTensor> Dense(const GgufTensor& tensor) const;
  // Rows [first, first + count) of any type that converts to float; out has
  // count * row_elements() floats. A tensor of rank > 2 counts as its product of leading dims rows.
  Status Dequantize(const GgufTensor& tensor, int64_t first, int64_t count,
                    std::span<float> out) const;
  // The whole tensor as owned floats.
  Result<HostTensor> DequantizeAll(const GgufTensor& tensor) const;
  void Drop(const GgufTensor& tensor) const;

 private:
  GgufFile() = default;
  void Index();
  Status Wrong(std::string_view key, std::string_view wanted) const;

  std::string path_;
  GgufHeader header_;
  std::map<std::string_view, size_t> keys_;
  std::map<std::string_view, size_t> names_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> mapped_;
};

}  // namespace edgewise::formats
