#include "compress/second_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "kernels/matmul.h"

namespace edgewise::compress {
namespace {

constexpr int64_t kRowGrain = 16;
constexpr int kMaxNm = 64;

// R[rows, from..cols) -= E[rows, block] U[block, from..cols).
template <typename T>
void UpdateTail(ExecContext* ctx, T* r, int64_t rows, int64_t from, int64_t cols, const T* e,
                int64_t block, const T* u) {
  if constexpr (std::is_same_v<T, float>) {
    if (ctx != nullptr) {
      const kernels::WeightRef tail{block, cols - from, DType::kF32, u + from, cols, nullptr};
      kernels::MatMulNN(*ctx, rows, cols - from, block, /*alpha=*/-1.0f, e, block, tail, r + from,
                        cols, kernels::Accumulate::kAdd);
      return;
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < block; ++k) {
      const T x = e[i * block + k];
      if (x == T(0)) continue;
      for (int64_t j = from; j < cols; ++j) r[i * cols + j] -= x * u[k * cols + j];
    }
  }
}

// One pass over the columns. The weights in `r_` are updated in place as columns are finished.
template <typename T>
class Pass {
 public:
  Pass(const T* w, const T* h, int64_t rows, int64_t cols, const ObsOptions& options,
       ExecContext* ctx)
      : w_(w), h_(h), rows_(rows), cols_(cols), opt_(options), ctx_(ctx) {}

  Result<ObsResult<T>> Run() {
    EW_RETURN_IF_ERROR(Prepare());
    for (int64_t b = 0; b < cols_; b += opt_.block) Block(b, std::min(b + opt_.block, cols_));
    Finish();
    return std::move(out_);
  }

 private:
  Status Prepare() {
    if (opt_.pattern == SparsePattern::kNm &&
        (opt_.nm.m < 1 || opt_.nm.m > kMaxNm || opt_.nm.n < 0 || opt_.nm.n > opt_.nm.m)) {
      return InvalidArgument(fmt::format("{} of {} weights pruned", opt_.nm.n, opt_.nm.m));
    }
    if (opt_.act_order && opt_.pattern != SparsePattern::kNone) {
      return InvalidArgument("act_order reorders the inputs and cannot be combined with pruning");
    }
    if (opt_.act_order) {
      out_.perm.resize(static_cast<size_t>(cols_));
      std::iota(out_.perm.begin(), out_.perm.end(), int64_t{0});
      const auto diagonal = [&](int64_t i) {
        const T d = h_[i * cols_ + i];
        return d == T(0) ? T(1) : d;
      };
      std::stable_sort(out_.perm.begin(), out_.perm.end(),
                       [&](int64_t a, int64_t b) { return diagonal(a) > diagonal(b); });
    }
    if constexpr (std::is_same_v<T, float>) {
      if (opt_.factor != nullptr && !opt_.act_order) factor_ = opt_.factor;
    }
    if (factor_ == nullptr) {
      EW_ASSIGN(own_factor_, FactorInverseHessian<T>(h_, cols_, opt_.hessian, out_.perm));
      factor_ = &own_factor_;
    }
    if (factor_->n != cols_) return InvalidArgument("the Hessian's factor has another size");
    out_.damp = factor_->damp;
    out_.damping_retries = factor_->retries;

    if (opt_.quantize) {
      out_.codes.assign(static_cast<size_t>(rows_ * cols_), 0);
      out_.g_idx.assign(static_cast<size_t>(cols_), 0);
      out_.groups = opt_.group > 0 ? (cols_ + opt_.group - 1) / opt_.group : 1;
      out_.scales.assign(static_cast<size_t>(rows_ * out_.groups), T(0));
      if (opt_.group <= 0) ScalesFrom(w_, /*begin=*/0, cols_, /*g=*/0, nullptr);
    }
    r_.assign(w_, w_ + rows_ * cols_);
    for (int64_t d : factor_->dead) {
      for (int64_t i = 0; i < rows_; ++i) r_[static_cast<size_t>(i * cols_ + d)] = T(0);
    }
    if (opt_.quantize && opt_.group > 0 && opt_.static_groups) {
      for (int64_t g = 0; g < out_.groups; ++g) {
        ScalesFrom(r_.data(), g * opt_.group, std::min(cols_, (g + 1) * opt_.group), g, nullptr);
      }
    }
    if (opt_.act_order) {
      std::vector<T> permuted(r_.size());
      for (int64_t i = 0; i < rows_; ++i) {
        for (int64_t k = 0; k < cols_; ++k) {
          permuted[static_cast<size_t>(i * cols_ + k)] =
              r_[static_cast<size_t>(i * cols_ + out_.perm[static_cast<size_t>(k)])];
        }
      }
      r_ = std::move(permuted);
    }
    if (opt_.pattern != SparsePattern::kNone) {
      out_.keep.assign(static_cast<size_t>(rows_ * cols_), 1);
      if (opt_.pattern == SparsePattern::kGiven) {
        std::copy_n(opt_.given_keep, rows_ * cols_, out_.keep.begin());
      }
    }
    e_.resize(static_cast<size_t>(rows_ * opt_.block));
    return Status::Ok();
  }

  // Scale of group g from columns [begin, end) of `w`, per row; only kept weights when `keep`.
  void ScalesFrom(const T* w, int64_t begin, int64_t end, int64_t g, const uint8_t* keep) {
    for (int64_t i = 0; i < rows_; ++i) {
      T max_abs = 0;
      for (int64_t j = begin; j < end; ++j) {
        if (keep == nullptr || keep[i * cols_ + j] != 0) {
          max_abs = std::max(max_abs, std::abs(w[i * cols_ + j]));
        }
      }
      T scale = opt_.grid.ScaleFor(max_abs);
      if (opt_.round_scale) scale = static_cast<T>(opt_.round_scale(static_cast<float>(scale)));
      out_.scales[static_cast<size_t>(i * out_.groups + g)] = scale;
    }
  }

  T Score(int64_t i, int64_t j) const {
    const T x =
        r_[static_cast<size_t>(i * cols_ + j)] / factor_->u[static_cast<size_t>(j * cols_ + j)];
    return x * x;
  }

  // Masks that are chosen when a block begins.
  void ChooseMask(int64_t b, int64_t e) {
    const int64_t n = e - b;
    std::vector<T> score(static_cast<size_t>(rows_ * n));
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = b; j < e; ++j) score[static_cast<size_t>(i * n + j - b)] = Score(i, j);
    }
    std::vector<uint8_t> keep;
    if (opt_.pattern == SparsePattern::kBlock) {
      keep = BlockMask(score.data(), rows_, n, opt_.block_rows, opt_.block_cols, opt_.sparsity);
    } else if (opt_.inclusive_cut) {
      std::vector<T> sorted = score;
      const auto at =
          std::min(sorted.size() - 1,
                   static_cast<size_t>(static_cast<double>(sorted.size()) * opt_.sparsity));
      std::nth_element(sorted.begin(), sorted.begin() + static_cast<int64_t>(at), sorted.end());
      const T cut = sorted[at];
      keep.resize(score.size());
      for (size_t k = 0; k < score.size(); ++k) keep[k] = score[k] > cut;
    } else {
      const auto count = static_cast<int64_t>(score.size());
      keep = RowMask(score.data(), 1, count,
                     static_cast<int64_t>(static_cast<double>(count) * opt_.sparsity));
    }
    for (int64_t i = 0; i < rows_; ++i) {
      std::copy_n(keep.begin() + i * n, n, out_.keep.begin() + i * cols_ + b);
    }
  }

  // n:m mask of row i for the columns [j, j + m) inside the block.
  void ChooseNm(int64_t i, int64_t j, int64_t e) {
    const int64_t n = std::min<int64_t>(opt_.nm.m, e - j);
    T score[kMaxNm];
    for (int64_t k = 0; k < n; ++k) score[k] = Score(i, j + k);
    const std::vector<uint8_t> keep = NmMask(score, 1, n, {opt_.nm.n, static_cast<int>(n)});
    std::copy(keep.begin(), keep.end(), out_.keep.begin() + i * cols_ + j);
  }

  void Block(int64_t b, int64_t e) {
    if (opt_.pattern == SparsePattern::kUnstructured || opt_.pattern == SparsePattern::kBlock) {
      ChooseMask(b, e);
    }
    if (opt_.quantize && opt_.group > 0 && !opt_.static_groups) {
      // Group scales come from the weights as they stand when the block begins.
      const bool kept_only = opt_.scale_from_kept && opt_.pattern != SparsePattern::kNone &&
                             opt_.pattern != SparsePattern::kNm;
      for (int64_t j = (b + opt_.group - 1) / opt_.group * opt_.group; j < e; j += opt_.group) {
        ScalesFrom(r_.data(), j, std::min(cols_, j + opt_.group), j / opt_.group,
                   kept_only ? out_.keep.data() : nullptr);
      }
    }
    for (int64_t j = b; opt_.quantize && j < e; ++j) {
      out_.g_idx[static_cast<size_t>(j)] = static_cast<int32_t>(GroupOf(j));
    }
    // Rows do not depend on each other.
    const auto rows = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) Row(i, b, e);
    };
    if (ctx_ != nullptr) {
      ctx_->ParallelFor(rows_, kRowGrain, rows);
    } else {
      rows(0, rows_, 0);
    }
    if (e < cols_) {
      UpdateTail(ctx_, r_.data(), rows_, e, cols_, e_.data(), e - b, factor_->u.data() + b * cols_);
    }
  }

  int64_t GroupOf(int64_t j) const {
    if (opt_.group <= 0) return 0;
    const bool permuted = opt_.static_groups && opt_.act_order;
    return (permuted ? out_.perm[static_cast<size_t>(j)] : j) / opt_.group;
  }

  // Fixes the columns [b, e) of row i from left to right; each spreads its error over the rest.
  void Row(int64_t i, int64_t b, int64_t e) {
    T* row = r_.data() + i * cols_;
    for (int64_t j = b; j < e; ++j) {
      if (opt_.pattern == SparsePattern::kNm && (j - b) % opt_.nm.m == 0) ChooseNm(i, j, e);
      const T* u = factor_->u.data() + j * cols_;
      const bool kept = out_.keep.empty() || out_.keep[static_cast<size_t>(i * cols_ + j)] != 0;
      T q = kept ? row[j] : T(0);
      if (opt_.quantize) {
        const T scale = out_.scales[static_cast<size_t>(i * out_.groups + GroupOf(j))];
        const int8_t code = opt_.grid.Code(q, scale);
        out_.codes[static_cast<size_t>(i * cols_ + j)] = code;
        q = static_cast<T>(code) * scale;
      }
      const T err = (row[j] - q) / u[j];
      for (int64_t k = j + 1; k < e; ++k) row[k] -= err * u[k];
      row[j] = q;
      e_[static_cast<size_t>(i * (e - b) + j - b)] = err;
    }
  }

  // Back to the original order of the inputs.
  void Finish() {
    if (!opt_.act_order) {
      out_.w = std::move(r_);
      return;
    }
    out_.w.resize(r_.size());
    std::vector<int8_t> codes(out_.codes.size());
    std::vector<int32_t> g_idx(out_.g_idx.size());
    for (int64_t k = 0; k < cols_; ++k) {
      const int64_t c = out_.perm[static_cast<size_t>(k)];
      if (!g_idx.empty()) g_idx[static_cast<size_t>(c)] = out_.g_idx[static_cast<size_t>(k)];
      for (int64_t i = 0; i < rows_; ++i) {
        out_.w[static_cast<size_t>(i * cols_ + c)] = r_[static_cast<size_t>(i * cols_ + k)];
        if (!codes.empty()) {
          codes[static_cast<size_t>(i * cols_ + c)] =
              out_.codes[static_cast<size_t>(i * cols_ + k)];
        }
      }
    }
    out_.codes = std::move(codes);
    out_.g_idx = std::move(g_idx);
  }

  const T* w_;
  const T* h_;
  const int64_t rows_, cols_;
  const ObsOptions& opt_;
  ExecContext* ctx_;
  InverseFactor<T> own_factor_;
  const InverseFactor<T>* factor_ = nullptr;
  std::vector<T> r_, e_;
  ObsResult<T> out_;
};

}  // namespace

template <typename T>
Result<ObsResult<T>> CompressSecondOrder(const T* w, const T* h, int64_t rows, int64_t cols,
                                         const ObsOptions& options, ExecContext* ctx) {
  return Pass<T>(w, h, rows, cols, options, ctx).Run();
}

template Result<ObsResult<float>> CompressSecondOrder(const float*, const float*, int64_t, int64_t,
                                                      const ObsOptions&, ExecContext*);
template Result<ObsResult<double>> CompressSecondOrder(const double*, const double*, int64_t,
                                                       int64_t, const ObsOptions&, ExecContext*);

}  // namespace edgewise::compress
