// Pruning and quantisation that compensate their error in the weights not yet handled, after the
// optimal brain surgeon: SparseGPT (arXiv 2301.00774) and GPTQ (arXiv 2210.17323).
//
// H = (2 / tokens) X^T X over the calibration inputs X [tokens, in] of the layer. T is float or
// double; double is the specification.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "compress/grid.h"
#include "compress/prune.h"
#include "exec/context.h"

namespace edgewise::compress {

struct HessianOptions {
  double percdamp = 0.01;  // damping as a fraction of the mean diagonal
  // A Hessian that is not positive definite after damping is damped ten times more, up to this many
  // times; every retry is reported.
  int max_retries = 5;
};

// U, upper triangular, row-major [n, n], with (H + damp I)^-1 = U^T U. Dead inputs (zero diagonal)
// get H[d,d] = 1 first and are listed.
template <typename T>
struct InverseFactor {
  int64_t n = 0;
  std::vector<T> u;
  std::vector<int64_t> dead;
  double damp = 0;
  int retries = 0;
};

// `order` (empty: as is) permutes the inputs first: column k of the result is input order[k].
template <typename T>
Result<InverseFactor<T>> FactorInverseHessian(const T* h, int64_t n, const HessianOptions& options,
                                              const std::vector<int64_t>& order = {});

// kGiven: the caller's mask.
enum class SparsePattern { kNone, kUnstructured, kNm, kBlock, kGiven };

struct ObsOptions {
  SparsePattern pattern = SparsePattern::kNone;
  double sparsity = 0;
  NmPattern nm;
  const uint8_t* given_keep = nullptr;       // [rows, cols], for kGiven
  int64_t block_rows = 16, block_cols = 32;  // kBlock tiles
  // As the paper's code: the cut is the score at sorted position int(n s), scores <= cut go (one
  // more than int(n s)). Off: exactly int(n s) per block, ties to the lower index.
  bool inclusive_cut = true;
  bool quantize = false;
  Grid grid;
  int64_t group = 0;  // inputs per scale; 0: one scale per row, from the untouched weights
  // Scale of a group from its kept weights only (joint pruning); dense groups are not affected.
  bool scale_from_kept = false;
  bool act_order = false;      // columns by descending diag(H); needs pattern kNone
  bool static_groups = false;  // with groups: scales from W before any update, original order
  int64_t block = 128;         // columns between two tail updates
  HessianOptions hessian;
  // What FactorInverseHessian gave for the same H (float only; no act_order), or null.
  const InverseFactor<float>* factor = nullptr;
  // Applied to every scale before it is used: rounds it to the type in which it is stored.
  std::function<float(float)> round_scale;
};

template <typename T>
struct ObsResult {
  std::vector<T> w;            // [rows, cols] new weights (codes * scales when quantised)
  std::vector<uint8_t> keep;   // [rows, cols], empty for kNone
  std::vector<int8_t> codes;   // [rows, cols], empty when not quantised
  std::vector<T> scales;       // [rows, groups]
  std::vector<int32_t> g_idx;  // [cols] group of each input
  std::vector<int64_t> perm;   // act_order: perm[k] = input handled k-th
  int64_t groups = 0;
  double damp = 0;
  int damping_retries = 0;
};

// Prunes and/or quantises W [rows, cols] in one pass. `ctx` (null: this thread, plain loops) gives
// threads and fast products; the result does not depend on the number of threads. Error: H not
// finite, or not positive definite within the allowed damping.
template <typename T>
Result<ObsResult<T>> CompressSecondOrder(const T* w, const T* h, int64_t rows, int64_t cols,
                                         const ObsOptions& options, ExecContext* ctx = nullptr);

}  // namespace edgewise::compress
