#include "formats/tensor_source.h"

#include <cstring>

#include "base/aligned_buffer.h"
#include "formats/printable.h"

namespace edgewise::formats {

Result<FileRange> TensorSource::Locate(std::string_view name) const {
  return Unsupported("tensor " + std::string(name) +
                     " cannot be read piece by piece: only safetensors files can");
}

std::vector<std::string> MemoryTensorSource::Names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

Result<HostTensor> MemoryTensorSource::Get(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return NotFound("there is no tensor " + Printable(name));
  return it->second;
}

HostTensor MakeFloatTensor(std::vector<int64_t> shape, const float* values) {
  HostTensor tensor;
  tensor.view.shape = std::move(shape);
  const auto buffer = std::make_shared<FloatBuffer>(tensor.view.elements());
  if (!buffer->empty()) std::memcpy(buffer->data(), values, buffer->span().size_bytes());
  tensor.view.data = buffer->data();
  tensor.owner = buffer;
  return tensor;
}

}  // namespace edgewise::formats
