#include "model/random_packed_model.h"

#include <algorithm>
#include <new>

#include "kernels/packed/random_packed.h"
#include "model/model_builder.h"

namespace edgewise::model {
namespace {

Result<kernels::PackedFormat> FormatOf(const WeightId& id, const RandomPackedOptions& options) {
  if (id.role == WeightRole::kLinear) return options.linears;
  kernels::PackedFormat f;
  f.bits = id.role == WeightRole::kHead ? options.head_bits : options.embedding_bits;
  if (f.bits != 4 && f.bits != 8) {
    return InvalidArgument("embedding and head are packed in 4 or 8 bits");
  }
  f.group = f.bits == 8 ? 0 : 64;
  return f;
}

}  // namespace

Result<std::unique_ptr<Model>> MakeRandomPackedModel(const ModelConfig& config,
                                                     const RandomPackedOptions& options) {
  EW_RETURN_IF_ERROR(ValidateConfig(config));
  try {
    ModelBuilder builder(config);
    uint64_t index = 0;
    for (const WeightId& id : ListWeights(config)) {
      const std::vector<int64_t> shape = ShapeOf(config, id);
      if (!id.is_matrix()) {
        const float value = id.is_norm() && !config.norm_plus_one ? 1.0f : 0.0f;
        std::fill_n(static_cast<float*>(builder.Allocate(id, DType::kF32)), shape[0], value);
        continue;
      }
      EW_ASSIGN(kernels::PackedFormat format, FormatOf(id, options));
      format.rows = shape[0];
      format.cols = shape[1];
      const double density = id.role == WeightRole::kLinear ? options.density : 1.0;
      EW_ASSIGN(auto matrix,
                kernels::RandomPackedMatrix(format, options.seed * 1000003 + ++index, density));
      builder.SetPacked(id, std::move(matrix));
    }
    return builder.Finish();
  } catch (const std::bad_alloc&) {
    return OutOfMemory("there is no memory for the packed weights of this model");
  }
}

}  // namespace edgewise::model
