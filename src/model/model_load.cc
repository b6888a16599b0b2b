// Loading: one walk over the list of weights, whatever the file format.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <optional>
#include <set>

#include "formats/gguf.h"
#include "formats/hf_dir.h"
#include "formats/safetensors.h"
#include "io/env.h"
#include "io/json.h"
#include "model/gguf_tensors.h"
#include "model/model.h"
#include "model/model_builder.h"
#include "model/packed_base.h"

namespace edgewise::model {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The type in which a tensor of type `stored` is held.
DType HeldType(const WeightId& id, DType stored, StorageDType storage) {
  if (!id.is_matrix()) return DType::kF32;
  switch (storage) {
    case StorageDType::kF32:
      return DType::kF32;
    case StorageDType::kBF16:
      return DType::kBF16;
    case StorageDType::kF16:
      return DType::kF16;
    case StorageDType::kAsStored:
      break;
  }
  return stored == DType::kF16 || stored == DType::kBF16 ? stored : DType::kF32;
}

void Convert(const TensorView& from, DType to, void* out) {
  constexpr int64_t kChunk = 4096;
  float chunk[kChunk];
  const auto* src = static_cast<const char*>(from.data);
  auto* dst = static_cast<char*>(out);
  const int64_t count = from.elements();
  for (int64_t at = 0; at < count; at += kChunk) {
    const int64_t n = std::min(kChunk, count - at);
    ConvertToF32(from.dtype, src + static_cast<size_t>(at) * DTypeBytes(from.dtype), chunk, n);
    ConvertFromF32(to, chunk, dst + static_cast<size_t>(at) * DTypeBytes(to), n);
  }
}

bool Finite(const TensorView& tensor) {
  constexpr int64_t kChunk = 4096;
  float chunk[kChunk];
  const auto* src = static_cast<const char*>(tensor.data);
  const int64_t count = tensor.elements();
  for (int64_t at = 0; at < count; at += kChunk) {
    const int64_t n = std::min(kChunk, count - at);
    ConvertToF32(tensor.dtype, src + static_cast<size_t>(at) * DTypeBytes(tensor.dtype), chunk, n);
    for (int64_t i = 0; i < n; ++i) {
      if (!std::isfinite(chunk[i])) return false;
    }
  }
  return true;
}

bool Aligned(const void* data, DType dtype) {
  return reinterpret_cast<uintptr_t>(data) % DTypeBytes(dtype) == 0;
}

// Type of the floats that packed weights are unpacked to; nothing: they stay packed.
std::optional<DType> UnpackedType(const LoadOptions& options) {
  if (options.storage == StorageDType::kAsStored) return std::nullopt;
  return HeldType({WeightRole::kEmbedding}, DType::kF32, options.storage);
}

void Unpack(const kernels::PackedMatrix& matrix, DType dtype, void* out) {
  const int64_t cols = matrix.cols();
  const int64_t step = std::clamp<int64_t>((int64_t{1} << 18) / cols, 1, matrix.rows());
  std::vector<float> rows(static_cast<size_t>(step * cols));
  for (int64_t row = 0; row < matrix.rows(); row += step) {
    const int64_t n = std::min(step, matrix.rows() - row);
    matrix.UnpackRows(row, n, rows.data(), cols);
    ConvertFromF32(dtype, rows.data(),
                   static_cast<char*>(out) + static_cast<size_t>(row * cols) * DTypeBytes(dtype),
                   n * cols);
  }
}

Status LoadPacked(const formats::TensorSource& source, const WeightId& id, const std::string& name,
                  const LoadOptions& options, ModelBuilder& builder) {
  EW_ASSIGN(const HostTensor tensor, source.Get(name));
  const std::vector<int64_t> shape = ShapeOf(builder.config(), id);
  if (tensor.view.dtype != DType::kU8 || tensor.view.shape.size() != 1) {
    return BadInput(fmt::format("{} is not a packed matrix (bytes)", name));
  }
  const std::span<const std::byte> bytes(static_cast<const std::byte*>(tensor.view.data),
                                         static_cast<size_t>(tensor.view.elements()));
  EW_ASSIGN(kernels::PackedMatrix matrix,
            kernels::PackedMatrix::FromBytes(bytes, tensor.owner).WithContext(name));
  if (matrix.rows() != shape[0] || matrix.cols() != shape[1]) {
    return BadInput(fmt::format("{} has shape [{}, {}], but the config says {}", name,
                                matrix.rows(), matrix.cols(), ShapeText(shape)));
  }
  if (const std::optional<DType> dtype = UnpackedType(options)) {
    Unpack(matrix, *dtype, builder.Allocate(id, *dtype));
  } else {
    if (options.tuning != nullptr) options.tuning->Apply(&matrix);
    builder.SetPacked(id, std::move(matrix), /*mapped=*/true);
  }
  // The checks read parts of the file that computing may not need soon.
  source.Drop(name);
  return Status::Ok();
}

// A quantised GGUF tensor as it is. False: its type has no packed form.
Result<bool> KeepQuantized(const GgufTensors& source, const WeightId& id, const std::string& name,
                           ModelBuilder& builder) {
  if (!id.is_matrix() || !source.Has(name)) return false;
  EW_ASSIGN(std::optional<kernels::PackedMatrix> matrix, source.Packed(name));
  if (!matrix) return false;
  const std::vector<int64_t> shape = ShapeOf(builder.config(), id);
  if (matrix->rows() != shape[0] || matrix->cols() != shape[1]) {
    return BadInput(fmt::format("{} has shape [{}, {}], but the config says {}", name,
                                matrix->rows(), matrix->cols(), ShapeText(shape)));
  }
  builder.SetPacked(id, *std::move(matrix));
  source.Drop(name);
  return true;
}

// Where a matrix lies that is to be streamed. Only its header is looked at.
Result<StreamedMatrix> LocateMatrix(const formats::TensorSource& source, const WeightId& id,
                                    const LoadOptions& options, const ModelConfig& config,
                                    const std::string& stored) {
  StreamedMatrix m;
  m.id = id;
  m.packed = source.Has(PackedName(stored));
  const std::string name = m.packed ? PackedName(stored) : stored;
  if (!source.Has(name)) return BadInput(fmt::format("weight {} is missing from the model", name));
  EW_ASSIGN(const formats::FileRange range, source.Locate(name));
  EW_ASSIGN(const HostTensor tensor, source.Get(name));
  const std::vector<int64_t> shape = ShapeOf(config, id);
  m.path = range.path;
  m.offset = range.offset;
  m.bytes = range.bytes;
  if (m.packed) {
    if (tensor.view.dtype != DType::kU8 || tensor.view.shape.size() != 1) {
      return BadInput(fmt::format("{} is not a packed matrix (bytes)", name));
    }
    const std::span<const std::byte> bytes(static_cast<const std::byte*>(tensor.view.data),
                                           static_cast<size_t>(tensor.view.elements()));
    EW_ASSIGN(const kernels::PackedMatrix matrix,
              kernels::PackedMatrix::FromBytes(bytes, tensor.owner, kernels::Verify::kHeader)
                  .WithContext(name));
    if (matrix.rows() != shape[0] || matrix.cols() != shape[1]) {
      return BadInput(fmt::format("{} has shape [{}, {}], but the config says {}", name,
                                  matrix.rows(), matrix.cols(), ShapeText(shape)));
    }
    source.Drop(name);
    if (UnpackedType(options)) {
      return Unsupported(
          "weights that are read from disk as they are needed stay packed: leave out --dtype");
    }
    return m;
  }
  if (tensor.view.shape != shape) {
    return BadInput(fmt::format("{} has shape {}, but the config says {}", name,
                                ShapeText(tensor.view.shape), ShapeText(shape)));
  }
  m.dtype = tensor.view.dtype;
  if (HeldType(id, m.dtype, options.storage) != m.dtype || !IsFloatDType(m.dtype)) {
    return Unsupported(fmt::format(
        "{} is stored as {}: weights that are read from disk as they are needed are used as they "
        "are stored; leave out --dtype, or convert or compress the model first",
        name, DTypeName(m.dtype)));
  }
  if (m.offset % static_cast<int64_t>(DTypeBytes(m.dtype)) != 0) {
    return Unsupported(fmt::format("{} is not aligned in its file: save the model again", name));
  }
  return m;
}

// A tied matrix is stored once, nearly always as the embedding; some exporters keep the head.
std::string StoredName(const formats::TensorSource& source, const ModelConfig& config,
                       const WeightId& id) {
  std::string name = HfName(config, id);
  if (id.role == WeightRole::kEmbedding && config.tied && !source.Has(name) &&
      !source.Has(PackedName(name)) && source.Has("lm_head.weight")) {
    return "lm_head.weight";
  }
  return name;
}

Status LoadWeight(const formats::TensorSource& source, const WeightId& id,
                  const LoadOptions& options, ModelBuilder& builder) {
  const std::string name = StoredName(source, builder.config(), id);
  const std::vector<int64_t> shape = ShapeOf(builder.config(), id);
  if (id.is_matrix() && source.Has(PackedName(name))) {
    return LoadPacked(source, id, PackedName(name), options, builder);
  }
  if (!source.Has(name)) {
    return BadInput(fmt::format("weight {} {} is missing from the model", name, ShapeText(shape)));
  }
  EW_ASSIGN(const HostTensor tensor, source.Get(name));
  if (tensor.view.shape != shape) {
    return BadInput(fmt::format("{} has shape {}, but the config says {}", name,
                                ShapeText(tensor.view.shape), ShapeText(shape)));
  }
  if (!IsFloatDType(tensor.view.dtype)) {
    return Unsupported(
        fmt::format("{} is stored as {}, not as floats", name, DTypeName(tensor.view.dtype)));
  }
  if (options.check_finite && !Finite(tensor.view)) {
    return BadInput(fmt::format("{} holds NaN or infinite values", name));
  }
  const DType held = HeldType(id, tensor.view.dtype, options.storage);
  // Of a streamed model nothing stays mapped.
  const bool in_place = options.stream.budget_bytes == 0 && held == tensor.view.dtype;
  if (in_place && Aligned(tensor.view.data, held)) {
    builder.Set(id, held, tensor.view.data, tensor.owner);
    return Status::Ok();
  }
  Convert(tensor.view, held, builder.Allocate(id, held));
  source.Drop(name);
  return Status::Ok();
}

// Buffers that old exporters saved and nobody reads, and the head of a tied model.
bool Harmless(const ModelConfig& config, const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || (config.tied && name == "lm_head.weight");
}

// `gguf`: the same source when its quantised tensors are to be kept, else null.
Result<std::unique_ptr<Model>> Build(const std::shared_ptr<const formats::TensorSource>& from,
                                     ModelConfig config, const LoadOptions& options,
                                     const GgufTensors* gguf = nullptr) {
  const formats::TensorSource& source = *from;
  ModelBuilder builder(std::move(config));
  builder.SetSource(from);
  std::set<std::string> used;
  try {
    std::vector<StreamedMatrix> streamed;
    for (const WeightId& id : ListWeights(builder.config())) {
      used.insert(HfName(builder.config(), id));
      used.insert(PackedName(HfName(builder.config(), id)));
      if (options.only && !options.only(id)) continue;
      bool kept = false;
      if (gguf != nullptr) {
        EW_ASSIGN(kept,
                  KeepQuantized(*gguf, id, StoredName(source, builder.config(), id), builder));
      }
      if (kept) continue;
      if (id.is_matrix() && options.stream.budget_bytes > 0) {
        EW_ASSIGN(StreamedMatrix matrix, LocateMatrix(source, id, options, builder.config(),
                                                      StoredName(source, builder.config(), id)));
        streamed.push_back(std::move(matrix));
      } else {
        EW_RETURN_IF_ERROR(LoadWeight(source, id, options, builder));
      }
    }
    if (!streamed.empty()) {
      StreamOptions stream = options.stream;
      stream.tuning = options.tuning;
      EW_RETURN_IF_ERROR(builder.Stream(std::move(streamed), stream));
    }
  } catch (const std::bad_alloc&) {
    return OutOfMemory(fmt::format("there is no memory for the {} weights of this model",
                                   builder.config().parameter_count()));
  }
  for (const std::string& name : source.Names()) {
    if (used.count(name) == 0 && !Harmless(builder.config(), name)) {
      builder.AddNote(fmt::format("tensor {} is not part of {} and is ignored", name,
                                  builder.config().architecture));
    }
  }
  return builder.Finish();
}

Result<std::unique_ptr<Model>> LoadGguf(const std::string& path, const LoadOptions& options) {
  EW_ASSIGN(std::shared_ptr<const formats::GgufFile> file, formats::GgufFile::Open(path));
  EW_ASSIGN(ModelConfig config, ConfigFromGguf(*file));
  const auto tensors = std::make_shared<const GgufTensors>(file, config);
  return Build(tensors, std::move(config), options, options.keep_quant ? tensors.get() : nullptr)
      .WithContext(path);
}

Result<std::unique_ptr<Model>> LoadHf(const std::string& dir, const LoadOptions& options) {
  const std::string config_path = JoinPath(dir, "config.json");
  EW_ASSIGN(const Json json, ReadJsonFile(config_path));
  EW_ASSIGN(ModelConfig config, ConfigFromHf(json).WithContext(config_path));
  const std::string packed = JoinPath(dir, kPackedFile);
  if (PosixEnv().Exists(packed)) {
    EW_ASSIGN(std::shared_ptr<const formats::SafetensorsFile> file,
              formats::SafetensorsFile::Open(packed));
    return Build(file, std::move(config), options).WithContext(packed);
  }
  EW_ASSIGN(std::shared_ptr<const formats::ShardedTensors> tensors,
            formats::ShardedTensors::Open(dir));
  return Build(tensors, std::move(config), options).WithContext(dir);
}

}  // namespace

Result<std::unique_ptr<Model>> Model::Load(const std::string& path, LoadOptions options) {
  Env& env = PosixEnv();
  if (!env.Exists(path)) return NotFound(fmt::format("{}: no such file or directory", path));
  return env.IsDirectory(path) ? LoadHf(path, options) : LoadGguf(path, options);
}

}  // namespace edgewise::model
