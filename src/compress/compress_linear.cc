#include "compress/compress_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compress/prune.h"
#include "compress/rtn.h"
#include "compress/second_order.h"
#include "kernels/matmul.h"

namespace edgewise::compress {
namespace {

// Columns of a block of block sparsity: a whole number of groups.
int64_t BlockCols(int64_t group) { return std::max<int64_t>(64, group); }

float RoundToF16(float scale) { return kernels::RoundScale(kernels::ScaleType::kF16, scale); }

// tr(D H D^T) / tr(W H W^T): the share of the output's energy that the change D makes up.
double OutputError(ExecContext& ctx, const float* w, const float* changed, const float* h,
                   int64_t rows, int64_t cols) {
  std::vector<float> d(static_cast<size_t>(rows * cols)), dh(d.size());
  const auto energy = [&](const float* x) {
    kernels::MatMulNN(ctx, rows, cols, cols, 1.0f, x, cols,
                      kernels::WeightRef::Dense(h, cols, cols), dh.data(), cols);
    double sum = 0;
    for (size_t i = 0; i < dh.size(); ++i) sum += static_cast<double>(dh[i]) * x[i];
    return sum;
  };
  const double total = energy(w);
  for (size_t i = 0; i < d.size(); ++i) d[i] = changed[i] - w[i];
  return total > 0 ? std::max(0.0, energy(d.data())) / total : 0.0;
}

std::vector<uint8_t> FirstOrderMask(const float* w, const float* h, int64_t rows, int64_t cols,
                                    const Option& option, const PatternSpec& pattern, Pruner pruner,
                                    int64_t group) {
  std::vector<float> score(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float norm = pruner == Pruner::kWanda ? std::sqrt(h[c * cols + c]) : 1.0f;
      score[static_cast<size_t>(r * cols + c)] = std::abs(w[r * cols + c]) * norm;
    }
  }
  switch (pattern.kind) {
    case PatternSpec::Kind::kNm:
      return NmMask(score.data(), rows, cols, pattern.nm);
    case PatternSpec::Kind::kBlock:
      return BlockMask(score.data(), rows, cols, kernels::kTileRows, BlockCols(group),
                       option.sparsity);
    case PatternSpec::Kind::kUnstructured:
      break;
  }
  return RowMask(score.data(), rows, cols,
                 static_cast<int64_t>(static_cast<double>(cols) * option.sparsity));
}

// Codes, scales and mask of the result, whichever method made them.
struct Parts {
  std::vector<float> w;
  std::vector<uint8_t> keep;
  std::vector<int8_t> codes;
  std::vector<float> scales;
};

Result<Parts> SecondOrder(ExecContext& ctx, const float* w, const float* h, int64_t rows,
                          int64_t cols, const Option& option, const PatternSpec& pattern,
                          const CompressOptions& options, bool prune, bool quantize,
                          const std::vector<uint8_t>& keep, const LinearTask& task,
                          std::string* warning) {
  ObsOptions o;
  o.factor = task.factor;
  o.hessian.percdamp = options.percdamp;
  o.inclusive_cut = false;
  o.scale_from_kept = true;
  if (prune) {
    o.sparsity = option.sparsity;
    o.pattern = pattern.kind == PatternSpec::Kind::kNm      ? SparsePattern::kNm
                : pattern.kind == PatternSpec::Kind::kBlock ? SparsePattern::kBlock
                                                            : SparsePattern::kUnstructured;
    o.nm = pattern.nm;
    o.block_rows = kernels::kTileRows;
    o.block_cols = BlockCols(options.policy.group);
  } else if (!keep.empty()) {
    o.pattern = SparsePattern::kGiven;
    o.given_keep = keep.data();
  }
  o.quantize = quantize;
  o.grid = Grid{option.bits};
  o.group = options.policy.group;
  o.round_scale = RoundToF16;
  EW_ASSIGN(auto r, CompressSecondOrder(w, h, rows, cols, o, &ctx));
  if (r.damping_retries > 0) {
    *warning = fmt::format("the Hessian needed damping {:.3g} to be positive definite", r.damp);
  }
  return Parts{std::move(r.w), std::move(r.keep), std::move(r.codes), std::move(r.scales)};
}

// 4-byte words of values. The kept codes of a tile are dealt to 8 / p streams per plane of p bits,
// and the longest stream says how long the plane is: the expected maximum of so many nearly normal
// counts, in standard deviations, is 0.56 of 2, 1.03 of 4, 1.42 of 8.
int64_t UnstructuredWords(int64_t rows, int64_t cols, int bits, double kept) {
  const kernels::Planes planes = kernels::PlanesOf(bits);
  double words = 0;
  for (int p = 0; p < planes.count; ++p) {
    const int streams = 8 / planes.width[p];
    const double n = static_cast<double>(kernels::kTileRows * cols) / streams;
    const double above = streams == 1 ? 0 : streams == 2 ? 0.56 : streams == 4 ? 1.03 : 1.42;
    words += std::ceil((n * kept + above * std::sqrt(n * kept * (1 - kept))) / 4);
  }
  return static_cast<int64_t>(words * std::ceil(static_cast<double>(rows) / kernels::kTileRows));
}

}  // namespace

kernels::PackedFormat FormatOf(int64_t rows, int64_t cols, const Option& option,
                               const CompressionPolicy& policy) {
  kernels::PackedFormat f;
  f.rows = rows;
  f.cols = cols;
  f.bits = option.bits;
  f.group = static_cast<int>(policy.group);
  if (option.sparsity <= 0) return f;
  const Result<PatternSpec> pattern = ParsePattern(policy.pattern);
  switch (pattern.ok() ? pattern->kind : PatternSpec::Kind::kUnstructured) {
    case PatternSpec::Kind::kUnstructured:
      f.structure = kernels::Structure::kUnstructured;
      break;
    case PatternSpec::Kind::kNm:
      f.structure = kernels::Structure::kNM;
      f.nm_n = pattern->nm.m - pattern->nm.n;
      f.nm_m = pattern->nm.m;
      break;
    case PatternSpec::Kind::kBlock:
      f.structure = kernels::Structure::kBlock;
      f.block_cols = static_cast<int>(BlockCols(policy.group));
      break;
  }
  return f;
}

int64_t PackedBytes(int64_t rows, int64_t cols, const Option& option, int64_t group,
                    const std::string& pattern) {
  if (option.bits > 8) return rows * cols * 2;
  CompressionPolicy policy;
  policy.group = group;
  policy.pattern = pattern;
  const kernels::PackedFormat f = FormatOf(rows, cols, option, policy);
  const double kept = 1.0 - option.sparsity;
  int64_t count = 0;
  if (f.structure == kernels::Structure::kUnstructured) {
    count = UnstructuredWords(rows, cols, f.bits, kept);
  } else if (f.structure == kernels::Structure::kBlock) {
    const double blocks = std::ceil(static_cast<double>(rows) / kernels::kTileRows) *
                          std::ceil(static_cast<double>(cols) / f.block_cols);
    count = static_cast<int64_t>(std::ceil(blocks * kept));
  }
  const Result<kernels::PackedLayout> layout = kernels::ComputeLayout(f, count);
  return layout.ok() ? layout->total : rows * cols * 2;
}

Result<LinearResult> CompressLinear(ExecContext& ctx, const float* w, const float* h, int64_t rows,
                                    int64_t cols, const Option& option,
                                    const CompressOptions& options, const LinearTask& task) {
  EW_ASSIGN(const PatternSpec pattern, ParsePattern(options.policy.pattern));
  const bool sparse = option.sparsity > 0;
  const bool quantize = option.bits <= 8;
  const bool obs_prune = sparse && options.pruner == Pruner::kSparseGpt;
  const bool obs_quantize = quantize && options.quantizer == Quantizer::kGptq;
  LinearResult out;
  Parts parts;
  parts.w.assign(w, w + rows * cols);
  if (sparse && !obs_prune) {
    parts.keep =
        FirstOrderMask(w, h, rows, cols, option, pattern, options.pruner, options.policy.group);
  }
  if (obs_prune || obs_quantize) {
    EW_ASSIGN(parts, SecondOrder(ctx, w, h, rows, cols, option, pattern, options, obs_prune,
                                 obs_quantize, parts.keep, task, &out.warning));
  }
  const uint8_t* keep = parts.keep.empty() ? nullptr : parts.keep.data();
  if (quantize && !obs_quantize) {
    auto q = RoundToNearest(parts.w.data(), rows, cols, Grid{option.bits}, options.policy.group,
                            keep, RoundToF16);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        parts.w[static_cast<size_t>(r * cols + c)] =
            static_cast<float>(q.codes[static_cast<size_t>(r * cols + c)]) *
            q.scales[static_cast<size_t>(r * q.groups + c / q.group)];
      }
    }
    parts.codes = std::move(q.codes);
    parts.scales = std::move(q.scales);
  } else if (keep != nullptr) {
    for (size_t i = 0; i < parts.w.size(); ++i) {
      if (keep[i] == 0) parts.w[i] = 0.0f;
    }
  }
  if (task.values_only) {
    out.dense = std::move(parts.w);
    return out;
  }
  out.error = OutputError(ctx, w, parts.w.data(), h, rows, cols);
  if (quantize) {
    kernels::QuantizedWeights q;
    q.q = parts.codes.data();
    q.scales = parts.scales.data();
    q.keep = keep;
    EW_ASSIGN(out.matrix,
              kernels::PackFromQuantized(FormatOf(rows, cols, option, options.policy), q));
    out.packed = true;
  }
  out.dense = std::move(parts.w);
  return out;
}

}  // namespace edgewise::compress
