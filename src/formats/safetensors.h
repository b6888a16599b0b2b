// safetensors files (https://github.com/huggingface/safetensors): u64 header length, JSON header,
// byte buffer. The reader checks everything the reference reader checks and what only the
// specification says (duplicate keys, plain integers, '{' first, limits on names, ranks, counts).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/tensor_source.h"
#include "io/mapped_file.h"

namespace edgewise::formats {

struct SafetensorsLimits {
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;
  static constexpr uint64_t kMaxNumber = uint64_t{1} << 48;
  static constexpr size_t kMaxRank = 8;
  static constexpr size_t kMaxTensors = 1'000'000;
  static constexpr size_t kMaxNameBytes = 1024;
};

// One entry of the header.
struct SafetensorsEntry {
  std::string name;
  std::string dtype_name;      // as in the file: "BF16", "F8_E4M3", ...
  std::optional<DType> dtype;  // nothing for types that only the format knows (F8, F4, C64, ...)
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes, relative to the buffer
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> tensors;  // in the order of the buffer; they tile it exactly
  uint64_t buffer_offset = 0;             // of the buffer in the file
};

// Checks and reads the header of a whole file in memory. Never trusts a number of the file: no
// allocation is larger than a small multiple of the header.
Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file);

class SafetensorsFile : public TensorSource {
 public:
  // Errors name the file, the tensor and what is wrong with it.
  static Result<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path,
                                                             MapMode mode = MapMode::kMap);
  // `bytes` are kept alive by `owner`; `name` stands for the path in errors.
  static Result<std::shared_ptr<const SafetensorsFile>> FromBytes(std::span<const std::byte> bytes,
                                                                  std::shared_ptr<const void> owner,
                                                                  std::string name);

  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::vector<SafetensorsEntry>& entries() const { return header_.tensors; }
  const SafetensorsEntry* Find(std::string_view name) const;
  // The raw bytes of an entry of this file.
  std::span<const std::byte> Bytes(const SafetensorsEntry& entry) const;

  std::vector<std::string> Names() const override;
  bool Has(std::string_view name) const override { return Find(name) != nullptr; }
  Result<HostTensor> Get(std::string_view name) const override;
  Result<FileRange> Locate(std::string_view name) const override;
  void Drop(std::string_view name) const override;

  // Every tensor by name; an error if one has a type that this program does not compute with.
  Result<std::map<std::string, HostTensor, std::less<>>> Tensors() const;

 private:
  SafetensorsFile() = default;

  std::string path_;
  SafetensorsHeader header_;
  std::map<std::string_view, size_t> index_;  // keys point into header_
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const MappedFile> mapped_;  // null for FromBytes
};

}  // namespace edgewise::formats
