#include "formats/safetensors_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "formats/printable.h"
#include "formats/safetensors.h"
#include "formats/safetensors_dtype.h"
#include "io/atomic_file.h"
#include "io/json.h"

namespace edgewise::formats {
namespace {

Status CheckAddable(std::string_view name, std::span<const int64_t> shape) {
  using Limits = SafetensorsLimits;
  if (name.empty() || name == "__metadata__" || name.size() > Limits::kMaxNameBytes ||
      std::any_of(name.begin(), name.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
    return InvalidArgument(fmt::format("{} is no name for a tensor", Printable(name)));
  }
  if (shape.size() > Limits::kMaxRank) {
    return InvalidArgument(fmt::format("tensor {}: rank {}, limit {}", Printable(name),
                                       shape.size(), Limits::kMaxRank));
  }
  return Status::Ok();
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::map<std::string, std::string> metadata)
    : metadata_(std::move(metadata)) {
  metadata_.emplace("format", "pt");
}

Status SafetensorsWriter::Add(std::string name, DType dtype, std::vector<int64_t> shape,
                              TensorProducer producer) {
  EW_RETURN_IF_ERROR(CheckAddable(name, shape));
  const std::optional<int64_t> elements = CheckedProduct(shape);
  const std::optional<int64_t> bytes =
      elements ? CheckedMul(*elements, static_cast<int64_t>(DTypeBytes(dtype))) : std::nullopt;
  const std::optional<int64_t> total = bytes ? CheckedAdd(*bytes, tensor_bytes_) : std::nullopt;
  if (!total || static_cast<uint64_t>(*total) > SafetensorsLimits::kMaxNumber) {
    return InvalidArgument(fmt::format("tensor {}: shape {} is too large for a safetensors file",
                                       Printable(name), ShapeText(shape)));
  }
  if (tensors_.count(name) != 0) {
    return InvalidArgument(fmt::format("tensor {} was added twice", Printable(name)));
  }
  tensor_bytes_ = *total;
  Tensor tensor{name, dtype, std::move(shape), *bytes, std::move(producer)};
  tensors_.emplace(std::move(name), std::move(tensor));
  return Status::Ok();
}

Status SafetensorsWriter::Add(std::string name, HostTensor tensor) {
  const DType dtype = tensor.view.dtype;
  std::vector<int64_t> shape = tensor.view.shape;
  return Add(std::move(name), dtype, std::move(shape),
             [tensor = std::move(tensor)](const ByteSink& sink) {
               return sink({static_cast<const std::byte*>(tensor.view.data),
                            static_cast<size_t>(tensor.view.bytes())});
             });
}

std::vector<const SafetensorsWriter::Tensor*> SafetensorsWriter::Sorted() const {
  std::vector<const Tensor*> order;
  order.reserve(tensors_.size());
  for (const auto& [name, tensor] : tensors_) order.push_back(&tensor);
  // Large types first keeps every tensor aligned for its type; the map gave the names in order.
  std::stable_sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
    return SafetensorsTypeOf(a->dtype).order > SafetensorsTypeOf(b->dtype).order;
  });
  return order;
}

std::string SafetensorsWriter::Header(const std::vector<const Tensor*>& order) const {
  // Joined by hand: an ordered JSON object would look for each new key among all earlier ones.
  std::string text = "{\"__metadata__\":" + DumpJson(Json(metadata_));
  int64_t offset = 0;
  for (const Tensor* tensor : order) {
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        DumpJson(Json(tensor->name)), SafetensorsTypeOf(tensor->dtype).name,
                        fmt::join(tensor->shape, ","), offset, offset + tensor->bytes);
    offset += tensor->bytes;
  }
  text += '}';
  text.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(text.size()), 8)), ' ');
  return text;
}

int64_t SafetensorsWriter::FileBytes() const {
  return 8 + static_cast<int64_t>(Header(Sorted()).size()) + tensor_bytes_;
}

Status SafetensorsWriter::WriteTo(WritableFile& file) const {
  const std::vector<const Tensor*> order = Sorted();
  const std::string header = Header(order);
  if (header.size() > SafetensorsLimits::kMaxHeaderBytes ||
      order.size() > SafetensorsLimits::kMaxTensors) {
    return InvalidArgument(fmt::format(
        "{} tensors are too many for one safetensors file; split them into shards", order.size()));
  }
  std::byte prefix[8];
  for (size_t i = 0; i < 8; ++i) {
    prefix[i] = static_cast<std::byte>(static_cast<uint64_t>(header.size()) >> (8 * i));
  }
  EW_RETURN_IF_ERROR(file.Append(prefix));
  EW_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(header))));
  for (const Tensor* tensor : order) {
    EW_RETURN_IF_ERROR(ProduceExactly(tensor->name, tensor->bytes, tensor->producer, file));
  }
  return Status::Ok();
}

Status SafetensorsWriter::Write(Env& env, const std::string& path) const {
  EW_ASSIGN(auto file, AtomicFile::Create(env, path));
  EW_RETURN_IF_ERROR(WriteTo(file->file()));
  return file->Commit();
}

}  // namespace edgewise::formats
