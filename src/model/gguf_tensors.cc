#include "model/gguf_tensors.h"

#include <fmt/format.h>

#include <cstring>
#include <set>

#include "kernels/packed/gguf_blocks.h"

namespace edgewise::model {
namespace {

// Row 2i + half of a head of `dim` rows goes to row half * D/2 + i.
int64_t TargetRow(int64_t row, int64_t dim) {
  const int64_t head = row / dim, d = row % dim;
  return head * dim + (d % 2) * (dim / 2) + d / 2;
}

HostTensor Deinterleave(const HostTensor& source, int64_t heads) {
  const TensorView& in = source.view;
  const int64_t rows = in.shape[0];
  const size_t row_bytes = static_cast<size_t>(in.bytes() / std::max<int64_t>(rows, 1));
  auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(in.bytes()));
  const int64_t dim = rows / heads;
  const auto* from = static_cast<const char*>(in.data);
  auto* to = buffer->as<char>();
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(to + static_cast<size_t>(TargetRow(row, dim)) * row_bytes,
                from + static_cast<size_t>(row) * row_bytes, row_bytes);
  }
  HostTensor out;
  out.view = {in.dtype, in.shape, buffer->data()};
  out.owner = std::move(buffer);
  return out;
}

}  // namespace

GgufTensors::GgufTensors(std::shared_ptr<const formats::GgufFile> file, const ModelConfig& config)
    : file_(std::move(file)) {
  const bool llama = config.model_type == "llama";
  std::set<std::string> known = {"rope_freqs.weight"};
  for (const WeightId& id : ListWeights(config)) {
    const std::string name = GgufName(id);
    known.insert(name);
    const formats::GgufTensor* tensor = file_->FindTensor(name);
    if (tensor == nullptr) continue;
    const bool linear = id.role == WeightRole::kLinear || id.role == WeightRole::kBias;
    int64_t heads = 0;
    if (llama && linear && id.kind == LinearKind::kQ) heads = config.heads;
    if (llama && linear && id.kind == LinearKind::kK) heads = config.kv_heads;
    entries_[HfName(config, id)] = {tensor, heads};
  }
  for (const formats::GgufTensor& tensor : file_->tensors()) {
    if (known.count(tensor.name) == 0) unexpected_.push_back(tensor.name);
  }
}

std::vector<std::string> GgufTensors::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

Result<HostTensor> GgufTensors::Get(std::string_view name) const {
  const auto it = entries_.find(name);
  if (it == entries_.end()) {
    return NotFound(fmt::format("{}: no tensor for {}", file_->path(), name));
  }
  const Entry& entry = it->second;
  const bool dense = formats::InfoOf(entry.tensor->type).dtype.has_value();
  EW_ASSIGN(HostTensor tensor,
            dense ? file_->Dense(*entry.tensor) : file_->DequantizeAll(*entry.tensor));
  if (entry.interleaved_heads == 0) return tensor;
  const std::vector<int64_t>& shape = tensor.view.shape;
  if (shape.empty() || shape[0] % (2 * entry.interleaved_heads) != 0) {
    return BadInput(fmt::format("{}: {} cannot be split into {} heads", file_->path(),
                                entry.tensor->name, entry.interleaved_heads));
  }
  return Deinterleave(tensor, entry.interleaved_heads);
}

Result<std::optional<kernels::PackedMatrix>> GgufTensors::Packed(std::string_view name) const {
  using Packed = std::optional<kernels::PackedMatrix>;
  const auto it = entries_.find(name);
  if (it == entries_.end()) {
    return NotFound(fmt::format("{}: no tensor for {}", file_->path(), name));
  }
  const formats::GgufTensor& tensor = *it->second.tensor;
  const auto type = static_cast<uint32_t>(tensor.type);
  if (!kernels::IsPackableGguf(type) || tensor.shape.size() != 2) return Packed();
  const int64_t rows = tensor.shape[0], heads = it->second.interleaved_heads;
  std::vector<int64_t> order;
  if (heads != 0) {
    if (rows % (2 * heads) != 0) {
      return BadInput(
          fmt::format("{}: {} cannot be split into {} heads", file_->path(), tensor.name, heads));
    }
    order.resize(static_cast<size_t>(rows));
    for (int64_t row = 0; row < rows; ++row) {
      order[static_cast<size_t>(TargetRow(row, rows / heads))] = row;
    }
  }
  EW_ASSIGN(kernels::PackedMatrix matrix,
            kernels::PackGguf(static_cast<kernels::GgufBlock>(type), file_->Bytes(tensor), rows,
                              tensor.shape[1], order.empty() ? nullptr : order.data())
                .WithContext(fmt::format("{}: {}", file_->path(), tensor.name)));
  return Packed(std::move(matrix));
}

void GgufTensors::Drop(std::string_view name) const {
  const auto it = entries_.find(name);
  if (it != entries_.end()) file_->Drop(*it->second.tensor);
}

}  // namespace edgewise::model
