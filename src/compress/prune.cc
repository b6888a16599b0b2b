#include "compress/prune.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace edgewise::compress {
namespace {

// Clears keep[base + i] for the k smallest score[base + i], i in [0, n).
template <typename T>
void DropSmallest(const T* score, uint8_t* keep, int64_t n, int64_t k,
                  std::vector<int64_t>& order) {
  if (k <= 0) return;
  k = std::min(k, n);
  order.resize(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto less = [&](int64_t a, int64_t b) {
    return score[a] < score[b] || (score[a] == score[b] && a < b);
  };
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), less);
  for (int64_t i = 0; i < k; ++i) keep[order[static_cast<size_t>(i)]] = 0;
}

template <typename T>
std::vector<T> AbsOf(const T* w, int64_t count) {
  std::vector<T> a(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) a[static_cast<size_t>(i)] = std::abs(w[i]);
  return a;
}

int64_t CountOf(int64_t n, double sparsity) {
  return static_cast<int64_t>(static_cast<double>(n) * sparsity);
}

}  // namespace

template <typename T>
std::vector<uint8_t> RowMask(const T* score, int64_t rows, int64_t cols, int64_t k) {
  std::vector<uint8_t> keep(static_cast<size_t>(rows * cols), 1);
  std::vector<int64_t> order;
  for (int64_t r = 0; r < rows; ++r) {
    DropSmallest(score + r * cols, keep.data() + r * cols, cols, k, order);
  }
  return keep;
}

template <typename T>
std::vector<uint8_t> NmMask(const T* score, int64_t rows, int64_t cols, NmPattern pattern) {
  std::vector<uint8_t> keep(static_cast<size_t>(rows * cols), 1);
  std::vector<int64_t> order;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; c += pattern.m) {
      const int64_t at = r * cols + c;
      DropSmallest(score + at, keep.data() + at, std::min<int64_t>(pattern.m, cols - c), pattern.n,
                   order);
    }
  }
  return keep;
}

template <typename T>
std::vector<uint8_t> BlockMask(const T* score, int64_t rows, int64_t cols, int64_t block_rows,
                               int64_t block_cols, double sparsity) {
  const int64_t tile_rows = (rows + block_rows - 1) / block_rows;
  const int64_t tile_cols = (cols + block_cols - 1) / block_cols;
  std::vector<double> sums(static_cast<size_t>(tile_rows * tile_cols), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      sums[static_cast<size_t>(r / block_rows * tile_cols + c / block_cols)] +=
          static_cast<double>(score[r * cols + c]);
    }
  }
  std::vector<uint8_t> tiles(sums.size(), 1);
  std::vector<int64_t> order;
  const auto n = static_cast<int64_t>(sums.size());
  DropSmallest(sums.data(), tiles.data(), n, CountOf(n, sparsity), order);
  std::vector<uint8_t> keep(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      keep[static_cast<size_t>(r * cols + c)] =
          tiles[static_cast<size_t>(r / block_rows * tile_cols + c / block_cols)];
    }
  }
  return keep;
}

template <typename T>
std::vector<uint8_t> MagnitudeMask(const T* w, int64_t rows, int64_t cols, double sparsity,
                                   PruneScope scope) {
  const std::vector<T> a = AbsOf(w, rows * cols);
  if (scope == PruneScope::kRow) return RowMask(a.data(), rows, cols, CountOf(cols, sparsity));
  return RowMask(a.data(), 1, rows * cols, CountOf(rows * cols, sparsity));
}

template <typename T>
std::vector<uint8_t> WandaMask(const T* w, const T* input_norm, int64_t rows, int64_t cols,
                               double sparsity, NmPattern pattern) {
  std::vector<T> score(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      score[static_cast<size_t>(r * cols + c)] = std::abs(w[r * cols + c]) * input_norm[c];
    }
  }
  if (pattern.n > 0) return NmMask(score.data(), rows, cols, pattern);
  return RowMask(score.data(), rows, cols, CountOf(cols, sparsity));
}

#define EW_INSTANTIATE(T)                                                                      \
  template std::vector<uint8_t> MagnitudeMask(const T*, int64_t, int64_t, double, PruneScope); \
  template std::vector<uint8_t> WandaMask(const T*, const T*, int64_t, int64_t, double,        \
                                          NmPattern);                                          \
  template std::vector<uint8_t> RowMask(const T*, int64_t, int64_t, int64_t);                  \
  template std::vector<uint8_t> NmMask(const T*, int64_t, int64_t, NmPattern);                 \
  template std::vector<uint8_t> BlockMask(const T*, int64_t, int64_t, int64_t, int64_t, double);
EW_INSTANTIATE(float)
EW_INSTANTIATE(double)
#undef EW_INSTANTIATE

}  // namespace edgewise::compress
