#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "base/rng.h"
#include "formats/tensor_source.h"
#include "kernels/packed/packed_matrix.h"
#include "model/model_builder.h"
#include "model/packed_base.h"
#include "tensor/dtype.h"

namespace edgewise::model {
namespace {

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

int64_t MatrixBytes(const kernels::WeightRef& w) {
  if (w.packed != nullptr) return static_cast<int64_t>(w.packed->bytes().size());
  return w.rows * w.ld * static_cast<int64_t>(DTypeBytes(w.dtype));
}

Status NoMemory(const ModelConfig& config) {
  return OutOfMemory(
      fmt::format("there is no memory for the {} weights of this model", config.parameter_count()));
}

Status CheckMatrix(const ModelConfig& config, const ModelWeights& weights, const WeightId& id) {
  const kernels::WeightRef& w = MatrixOf(weights, id);
  const std::vector<int64_t> shape = ShapeOf(config, id);
  if (w.rows != shape[0] || w.cols != shape[1]) {
    return BadInput(fmt::format("{} is [{}, {}], but the config says [{}, {}]", HfName(config, id),
                                w.rows, w.cols, shape[0], shape[1]));
  }
  if (w.packed == nullptr && (w.data == nullptr || w.ld < w.cols)) {
    return InvalidArgument(fmt::format("{} has no values", HfName(config, id)));
  }
  return Status::Ok();
}

const void* ValuesOf(const kernels::WeightRef& w) {
  return w.packed != nullptr ? w.packed->bytes().data() : w.data;
}

}  // namespace

Result<StorageDType> ParseStorageDType(std::string_view text) {
  if (text == "as-stored" || text == "auto") return StorageDType::kAsStored;
  if (text == "fp32" || text == "f32" || text == "float32") return StorageDType::kF32;
  if (text == "bf16" || text == "bfloat16") return StorageDType::kBF16;
  if (text == "fp16" || text == "f16" || text == "float16") return StorageDType::kF16;
  return InvalidArgument(
      fmt::format("'{}' is no storage type; there are as-stored, fp32, bf16 and fp16", text));
}

int64_t WeightBytes(const ModelConfig& config, const ModelWeights& weights) {
  int64_t bytes = 0;
  for (const WeightId& id : ListWeights(config)) {
    if (!id.is_matrix()) {
      bytes += Elements(ShapeOf(config, id)) * static_cast<int64_t>(sizeof(float));
      continue;
    }
    const kernels::WeightRef& w = MatrixOf(weights, id);
    bytes += MatrixBytes(w);
  }
  return bytes;
}

int64_t Model::weight_bytes() const {
  if (stream_ == nullptr) return WeightBytes(config_, weights_);
  int64_t bytes = stream_->total_bytes();
  for (const WeightId& id : ListWeights(config_)) {
    if (!id.is_matrix()) bytes += Elements(ShapeOf(config_, id)) * int64_t{sizeof(float)};
  }
  return bytes;
}

ModelBuilder::ModelBuilder(ModelConfig config) : model_(new Model()) {
  model_->config_ = std::move(config);
  model_->weights_.layers.resize(model_->config_.layers.size());
}

void ModelBuilder::Set(const WeightId& id, DType dtype, const void* data,
                       std::shared_ptr<const void> owner) {
  if (id.is_matrix()) {
    const std::vector<int64_t> shape = ShapeOf(config(), id);
    MatrixOf(model_->weights_, id) = {shape[0], shape[1], dtype, data, shape[1], nullptr};
  } else {
    VectorOf(model_->weights_, id) = static_cast<const float*>(data);
  }
  if (owner != nullptr && (model_->owners_.empty() || model_->owners_.back() != owner)) {
    model_->owners_.push_back(std::move(owner));
  }
}

void ModelBuilder::SetPacked(const WeightId& id, kernels::PackedMatrix matrix, bool mapped) {
  auto owned = std::make_shared<const kernels::PackedMatrix>(std::move(matrix));
  if (!mapped) model_->allocated_.insert(owned->bytes().data());
  MatrixOf(model_->weights_, id) = owned->Ref();
  model_->owners_.push_back(std::move(owned));
}

void* ModelBuilder::Allocate(const WeightId& id, DType dtype) {
  const size_t bytes = static_cast<size_t>(Elements(ShapeOf(config(), id))) * DTypeBytes(dtype);
  auto buffer = std::make_shared<AlignedBuffer>(bytes);
  void* data = buffer->data();
  model_->allocated_.insert(data);
  Set(id, dtype, data, std::move(buffer));
  return data;
}

Status ModelBuilder::Stream(std::vector<StreamedMatrix> matrices, const StreamOptions& options) {
  EW_ASSIGN(model_->stream_,
            WeightStream::Create(std::move(matrices), model_->config_, &model_->weights_, options));
  return Status::Ok();
}

std::unique_ptr<Model> ModelBuilder::Finish() {
  if (model_->config_.tied) model_->weights_.head = model_->weights_.embedding;
  return std::move(model_);
}

Result<std::unique_ptr<Model>> Model::Random(const ModelConfig& config, uint64_t seed,
                                             DType dtype) {
  EW_RETURN_IF_ERROR(ValidateConfig(config));
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    return InvalidArgument(fmt::format("weights cannot be held as {}", DTypeName(dtype)));
  }
  try {
    ModelBuilder builder(config);
    uint64_t index = 0;
    for (const WeightId& id : ListWeights(config)) {
      const DType type = id.is_matrix() ? dtype : DType::kF32;
      const int64_t count = Elements(ShapeOf(config, id));
      auto* data = static_cast<char*>(builder.Allocate(id, type));
      Rng rng(seed, RngStream::kInit, (uint64_t{1} << 32) + index++);
      std::vector<float> chunk(4096);
      for (int64_t at = 0; at < count; at += 4096) {
        const int64_t n = std::min<int64_t>(4096, count - at);
        std::fill(chunk.begin(), chunk.end(), id.is_norm() && !config.norm_plus_one ? 1.0f : 0.0f);
        for (int64_t i = 0; id.is_matrix() && i < n; i += 4) {
          const auto block = rng.Block(static_cast<uint64_t>((at + i) / 4));
          for (size_t j = 0; j < 4; ++j) {
            chunk[static_cast<size_t>(i) + j] =
                static_cast<float>((block[j] * 0x1.0p-32 - 0.5) * (0.02 * 3.4641016151377544));
          }
        }
        ConvertFromF32(type, chunk.data(), data + static_cast<size_t>(at) * DTypeBytes(type), n);
      }
    }
    return builder.Finish();
  } catch (const std::bad_alloc&) {
    return NoMemory(config);
  }
}

Result<std::unique_ptr<Model>> Model::FromWeights(ModelConfig config, ModelWeights weights,
                                                  std::vector<std::shared_ptr<const void>> owners) {
  EW_RETURN_IF_ERROR(ValidateConfig(config));
  if (weights.layers.size() != config.layers.size()) {
    return BadInput(fmt::format("there are weights of {} layers, the config says {}",
                                weights.layers.size(), config.layers.size()));
  }
  if (config.tied) weights.head = weights.embedding;
  for (const WeightId& id : ListWeights(config)) {
    if (id.is_matrix()) {
      EW_RETURN_IF_ERROR(CheckMatrix(config, weights, id));
    } else if (VectorOf(weights, id) == nullptr) {
      return BadInput(fmt::format("{} is missing", HfName(config, id)));
    }
  }
  std::unique_ptr<Model> model(new Model());
  model->config_ = std::move(config);
  model->weights_ = std::move(weights);
  model->owners_ = std::move(owners);
  return model;
}

int64_t Model::MappedBytes(const WeightId& id) const {
  if (source_ == nullptr || !id.is_matrix()) return 0;
  const kernels::WeightRef& w = MatrixOf(weights_, id);
  return allocated_.count(ValuesOf(w)) != 0 ? 0 : MatrixBytes(w);
}

int64_t Model::allocated_bytes() const {
  int64_t bytes = 0;
  for (const WeightId& id : ListWeights(config_)) {
    if (!id.is_matrix()) continue;
    const kernels::WeightRef& w = MatrixOf(weights_, id);
    if (allocated_.count(ValuesOf(w)) != 0) bytes += MatrixBytes(w);
  }
  return bytes;
}

void Model::DropCached(const WeightId& id) const {
  if (source_ == nullptr) return;
  if (config_.tied && id.role == WeightRole::kHead) return DropCached({WeightRole::kEmbedding});
  const std::string name = HfName(config_, id);
  for (const std::string& stored : {name, PackedName(name), std::string("lm_head.weight")}) {
    const bool tied_head = stored == "lm_head.weight" && id.role == WeightRole::kEmbedding;
    if ((stored != "lm_head.weight" || tied_head || id.role == WeightRole::kHead) &&
        source_->Has(stored)) {
      source_->Drop(stored);
    }
  }
}

Status Model::MakeTrainable() {
  if (trainable_) return Status::Ok();
  if (stream_ != nullptr) {
    return Unsupported("weights that are read from disk as they are needed cannot be trained");
  }
  for (const WeightId& id : ListWeights(config_)) {
    if (id.is_matrix() && MatrixOf(weights_, id).packed != nullptr) {
      return Unsupported(fmt::format(
          "{} is compressed: the base weights of a compressed model cannot be trained; use an "
          "adapter or the original model",
          HfName(config_, id)));
    }
  }
  try {
    ModelBuilder builder(config_);
    for (const WeightId& id : ListWeights(config_)) {
      auto* out = static_cast<float*>(builder.Allocate(id, DType::kF32));
      if (!id.is_matrix()) {
        std::copy_n(VectorOf(weights_, id), Elements(ShapeOf(config_, id)), out);
        continue;
      }
      const kernels::WeightRef& w = MatrixOf(weights_, id);
      for (int64_t row = 0; row < w.rows; ++row) {
        const auto offset = static_cast<size_t>(row * w.ld) * DTypeBytes(w.dtype);
        ConvertToF32(w.dtype, static_cast<const char*>(w.data) + offset, out + row * w.cols,
                     w.cols);
      }
    }
    std::unique_ptr<Model> copy = builder.Finish();
    weights_ = std::move(copy->weights_);
    owners_ = std::move(copy->owners_);
    allocated_ = std::move(copy->allocated_);
    source_.reset();
  } catch (const std::bad_alloc&) {
    return NoMemory(config_);
  }
  trainable_ = true;
  return Status::Ok();
}

float* Model::MutableData(const WeightId& id) {
  if (!trainable_) return nullptr;
  // Storage of a trainable model is owned and was allocated writable.
  const void* data = id.is_matrix() ? MatrixOf(weights_, id).data
                                    : static_cast<const void*>(VectorOf(weights_, id));
  return static_cast<float*>(const_cast<void*>(data));
}

}  // namespace edgewise::model
