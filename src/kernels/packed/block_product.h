// Integer products of rounded rows with a block of 128 rows of a dense packed matrix, on one
// thread: the LM head inside the fused loss, which walks the vocabulary itself.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/packed/activations.h"
#include "kernels/packed/row_grid.h"

namespace edgewise::kernels {

class BlockProduct {
 public:
  static constexpr int64_t kRows = 128;  // of the matrix: vocabulary entries

  // Whether the matrix has the form that this computes on: dense.
  static bool CanForward(const PackedMatrix& w) {
    return w.format().structure == Structure::kDense;
  }
  // The gradient also wants whole tiles of columns.
  static bool CanBackward(const PackedMatrix& w) {
    return CanForward(w) && w.cols() % kTileRows == 0;
  }

  BlockProduct(const PackedMatrix& w, const Int8Table& table);

  // How rows [n, cols] of activations are rounded for Forward.
  QuantizePlan Plan(int64_t n) const;
  int group() const { return w_.format().act_group; }

  // Matrix rows [first, first + columns) as a panel of forward_bytes() bytes, 64-byte aligned;
  // first is a multiple of 128.
  int64_t forward_bytes() const;
  void PackForward(int64_t first, int64_t columns, uint8_t* out) const;
  // z [rows, columns] = rows [row, row + rows) of x times the panel: the bits of PackedForward.
  void Forward(const QuantizedRows& x, int64_t row, int64_t rows, int64_t columns,
               const uint8_t* panel, float* z, int64_t ldz) const;

  // The same rows for the product over them.
  int64_t backward_bytes() const;
  void PackBackward(int64_t first, int64_t columns, uint8_t* out) const;
  // o [rows, cols] += p [rows, columns] times the matrix rows. p times the rows' scales is rounded
  // to int8 with one scale per row of p: every element is off by at most 1/254 of the largest.
  void Backward(int64_t rows, int64_t columns, const float* p, int64_t ldp, const uint8_t* panel,
                float* o, int64_t ldo) const;

 private:
  const PackedMatrix& w_;
  const Int8Table& table_;
  const TileReader reader_;
  const RowGrid grid_;
  const int64_t units_, groups_;
  std::vector<Segment> segments_;  // of a row of the matrix
  std::vector<Run> runs_;
  std::vector<int64_t> chunks_;  // first segment of every 512 columns, and the end
};

}  // namespace edgewise::kernels
