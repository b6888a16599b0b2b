// Masks from one score per weight. Every function returns keep [rows, cols], 1 = kept; ties go to
// the lower (row-major) index being pruned first.
#pragma once

#include <cstdint>
#include <vector>

namespace edgewise::compress {

// n of every m consecutive inputs are pruned; n == 0: unstructured.
struct NmPattern {
  int n = 0;
  int m = 0;
};

enum class PruneScope { kRow, kMatrix };

// The int(count * sparsity) smallest |w| of each row, or of the whole matrix.
template <typename T>
std::vector<uint8_t> MagnitudeMask(const T* w, int64_t rows, int64_t cols, double sparsity,
                                   PruneScope scope);

// Wanda (arXiv 2306.11695): score |w| * ||x_j||, per row; n:m per group of m inputs.
// input_norm [cols] = L2 norm of each input feature over the calibration tokens.
template <typename T>
std::vector<uint8_t> WandaMask(const T* w, const T* input_norm, int64_t rows, int64_t cols,
                               double sparsity, NmPattern pattern);

// Generic forms over any score: the k smallest per row; n of m per row; whole tiles of
// block_rows x block_cols with the smallest sums of scores (int(tiles * sparsity) of the matrix).
template <typename T>
std::vector<uint8_t> RowMask(const T* score, int64_t rows, int64_t cols, int64_t k);
template <typename T>
std::vector<uint8_t> NmMask(const T* score, int64_t rows, int64_t cols, NmPattern pattern);
template <typename T>
std::vector<uint8_t> BlockMask(const T* score, int64_t rows, int64_t cols, int64_t block_rows,
                               int64_t block_cols, double sparsity);

}  // namespace edgewise::compress
