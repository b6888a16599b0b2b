// Writes GGUF version 3: metadata in the order given, tensors in the order given, streaming.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/gguf.h"
#include "formats/tensor_producer.h"
#include "io/env.h"

namespace edgewise::formats {

class GgufWriter {
 public:
  explicit GgufWriter(uint32_t alignment = 32);

  // Metadata. Error: duplicate or illegal key. "general.alignment" is written by itself when it is
  // not 32.
  Status SetString(std::string_view key, std::string_view value);
  Status SetU32(std::string_view key, uint32_t value);
  Status SetU64(std::string_view key, uint64_t value);
  Status SetI32(std::string_view key, int32_t value);
  Status SetF32(std::string_view key, float value);
  Status SetBool(std::string_view key, bool value);
  Status SetStrings(std::string_view key, std::span<const std::string> values);
  Status SetI32s(std::string_view key, std::span<const int32_t> values);
  Status SetF32s(std::string_view key, std::span<const float> values);
  // A value as another file has it.
  Status SetValue(std::string_view key, const GgufValue& value);

  // `shape` in math order (the row last), at most 4 dims; the row is a multiple of the block. The
  // producer hands over the blocks of the type.
  Status AddTensor(std::string name, GgmlType type, std::vector<int64_t> shape,
                   TensorProducer producer);
  // A dense float tensor (F32, F16, BF16 or F64), converted to `type` (F32, F16, BF16, Q8_0, Q4_0)
  // row by row while it is written. Kept alive until the writer is gone.
  Status AddTensor(std::string name, GgmlType type, HostTensor tensor);

  int64_t FileBytes() const;
  int64_t HeaderBytes() const;  // of them before the first tensor
  Status WriteTo(WritableFile& file) const;
  Status Write(Env& env, const std::string& path) const;  // atomic, as SafetensorsWriter::Write

 private:
  struct TensorSlot {
    std::string name;
    GgmlType type;
    std::vector<int64_t> shape;
    int64_t bytes;
    TensorProducer producer;
  };
  Status Put(std::string_view key, GgufValueType type, std::string_view payload);
  std::string Header() const;

  uint32_t alignment_;
  std::string kv_;  // encoded
  std::set<std::string> keys_;
  std::set<std::string> names_;
  std::vector<TensorSlot> tensors_;
};

}  // namespace edgewise::formats
