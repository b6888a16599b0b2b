#include "model/matrix_form.h"

#include <algorithm>

#include "kernels/packed/packed_matrix.h"

namespace edgewise::model {
namespace {

MatrixForm FromFormat(const kernels::PackedFormat& f, int64_t bytes) {
  MatrixForm form;
  form.bits = f.bits;
  form.bytes = bytes;
  form.group = f.group;
  const double dense = static_cast<double>(f.rows) * static_cast<double>(f.cols) * f.bits / 8;
  const auto size = static_cast<double>(bytes);
  form.blocks = f.structure == kernels::Structure::kBlock;
  if (form.blocks) form.sparsity = std::clamp(1 - size / dense, 0.0, 0.95);
  if (f.structure == kernels::Structure::kUnstructured) {
    // A bit of the mask per weight.
    form.sparsity = std::clamp(1 - (size - dense / f.bits) / dense, 0.0, 0.95);
  }
  if (f.structure == kernels::Structure::kNM) {
    form.sparsity = 1.0 - static_cast<double>(f.nm_n) / f.nm_m;
  }
  return form;
}

}  // namespace

Result<MatrixForm> FormOf(const Model& model, const WeightId& id) {
  WeightId stored = id;
  if (id.role == WeightRole::kHead && model.config().tied) stored.role = WeightRole::kEmbedding;
  const kernels::WeightRef& w = MatrixOf(model.weights(), id);
  const bool streamed = model.stream() != nullptr && model.stream()->matrix_bytes(stored) > 0;
  if (w.packed != nullptr && streamed) {
    EW_ASSIGN(const kernels::PackedFormat f, model.stream()->ReadFormat(stored));
    return FromFormat(f, model.stream()->matrix_bytes(stored));
  }
  if (w.packed != nullptr) {
    return FromFormat(w.packed->format(), static_cast<int64_t>(w.packed->bytes().size()));
  }
  MatrixForm form;
  form.bits = w.dtype == DType::kF32 ? 32 : 16;
  form.bytes = w.rows * w.cols * form.bits / 8;
  return form;
}

MatrixForm FormOfShape(int64_t rows, int64_t cols, int bits, double sparsity, bool blocks) {
  MatrixForm form;
  form.bits = bits;
  const double weights = static_cast<double>(rows) * static_cast<double>(cols);
  if (bits >= 16) {
    form.bytes = static_cast<int64_t>(weights * bits / 8);
    return form;
  }
  form.sparsity = sparsity;
  form.blocks = blocks;
  // Values, a mask bit per weight where zeros lie anywhere, a scale per 128 columns or per row.
  double bits_each = bits * (1 - sparsity);
  if (sparsity > 0 && !blocks) bits_each += 1;
  bits_each += sparsity > 0 ? 16.0 / static_cast<double>(cols) : 16.0 / 128;
  form.bytes = static_cast<int64_t>(weights * bits_each / 8);
  return form;
}

}  // namespace edgewise::model
