#include "model/save_packed.h"

#include <memory>

#include "formats/safetensors_writer.h"
#include "kernels/packed/packed_matrix.h"
#include "model/packed_base.h"
#include "model/save.h"
#include "model/weight_table.h"
#include "tensor/dtype.h"

namespace edgewise::model {
namespace {

// Producers point into the model, which outlives the writer.
formats::TensorProducer Bytes(const void* data, size_t size) {
  return [bytes = std::span(static_cast<const std::byte*>(data), size)](
             const formats::ByteSink& sink) { return sink(bytes); };
}

int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

}  // namespace

Status SavePackedBase(Env& env, const Model& model, const std::map<std::string, std::string>& files,
                      const std::string& dir) {
  const ModelConfig& config = model.config();
  if (model.stream() != nullptr) return Unsupported("a streamed model cannot be saved");
  EW_RETURN_IF_ERROR(CreateDirsSynced(env, dir));
  formats::SafetensorsWriter writer;
  for (const WeightId& id : ListWeights(config)) {
    const std::string name = HfName(config, id);
    const std::vector<int64_t> shape = ShapeOf(config, id);
    if (!id.is_matrix()) {
      EW_RETURN_IF_ERROR(writer.Add(name, DType::kF32, shape,
                                    Bytes(VectorOf(model.weights(), id),
                                          static_cast<size_t>(Elements(shape)) * sizeof(float))));
      continue;
    }
    const kernels::WeightRef& w = MatrixOf(model.weights(), id);
    if (w.packed != nullptr) {
      const std::span<const std::byte> bytes = w.packed->bytes();
      EW_RETURN_IF_ERROR(writer.Add(PackedName(name), DType::kU8,
                                    {static_cast<int64_t>(bytes.size())},
                                    Bytes(bytes.data(), bytes.size())));
      continue;
    }
    if (w.ld != w.cols) return Unsupported(name + " is not contiguous");
    EW_RETURN_IF_ERROR(
        writer.Add(name, w.dtype, shape,
                   Bytes(w.data, static_cast<size_t>(Elements(shape)) * DTypeBytes(w.dtype))));
  }
  EW_RETURN_IF_ERROR(
      WriteFileAtomic(env, JoinPath(dir, "config.json"), ConfigToHf(config, DType::kF16)));
  for (const auto& [name, text] : files) {
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, JoinPath(dir, name), text));
  }
  return writer.Write(env, JoinPath(dir, std::string(kPackedFile)));
}

}  // namespace edgewise::model
