// The form in which a matrix is held: what a cost model has to know of it.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "model/model.h"
#include "model/weight_table.h"

namespace edgewise::model {

struct MatrixForm {
  int bits = 16;  // 32: fp32, 16: half precision, else packed
  double sparsity = 0;
  bool blocks = false;  // zeros in whole blocks
  int group = -1;       // columns per scale, 0: one per row; -1: unknown
  int64_t bytes = 0;
};

// Of a model's matrix, streamed or in memory. Error: a header that cannot be read.
Result<MatrixForm> FormOf(const Model& model, const WeightId& id);
// Of a matrix that is not there: rows x cols weights of so many bits, the share `sparsity` of them
// zero, anywhere or in blocks.
MatrixForm FormOfShape(int64_t rows, int64_t cols, int bits, double sparsity, bool blocks);

}  // namespace edgewise::model
