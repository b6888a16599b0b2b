// A linear layer on a weight in any form, dense or packed.
#pragma once

#include <span>

#include "kernels/matmul.h"

namespace edgewise::kernels {

// Y[m,out] (+)= X[m,in] W^T + bias, then += the low-rank term. bias [out] or null.
void LinearForward(ExecContext& ctx, int64_t m, const float* x, int64_t ldx, const WeightRef& w,
                   const float* bias, float* y, int64_t ldy,
                   Accumulate acc = Accumulate::kOverwrite, const LowRank& low_rank = {});

// The same with packed weights as fp32 numbers, a few rows of W at a time: slow, what rounding X to
// int8 costs is measured against it. Dense weights: as LinearForward.
void LinearForwardExact(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                        const WeightRef& w, const float* bias, float* y, int64_t ldy,
                        Accumulate acc = Accumulate::kOverwrite);

// The same for several weights on one X: packed ones share the rounding of X. Same bits as one by
// one.
struct LinearTarget {
  WeightRef w;
  const float* bias = nullptr;
  float* y = nullptr;
  int64_t ldy = 0;
  Accumulate acc = Accumulate::kOverwrite;
  LowRank low_rank = {};
};
void LinearForwardMany(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                       std::span<const LinearTarget> targets);

// Rows of an X that is made when it is needed: writes rows [begin, end) to `out`, one after the
// other. Called by any thread, which must not use the context's pool or scratch.
using RowMaker = FunctionRef<void(int64_t begin, int64_t end, float* out)>;
// The same for X of such rows: packed weights round each row where it was made. Others have X made
// in x [m, in] first; what x holds afterwards is undefined.
void LinearForwardMade(ExecContext& ctx, int64_t m, RowMaker make, float* x,
                       std::span<const LinearTarget> targets);

// How the gradient passes through packed weights (dense ones are always exact).
enum class BackwardMode : uint8_t {
  kExact,    // weights become fp32 panels
  kInteger,  // int8 dot products: faster, at an error of about a percent (docs/packed-layouts.md)
};

struct LinearBackwardOptions {
  BackwardMode mode = BackwardMode::kExact;
  bool stochastic = false;  // kInteger: unbiased rounding of dY instead of nearest
  uint64_t seed = 0;        // of the rounding noise, with a substream per layer and step
  uint64_t substream = 0;
  int64_t first_row = 0;  // of dY among the rows that the noise is drawn for
};

// dX[m,in] (+)= dY[m,out] W, then += the low-rank term.
void LinearBackwardInput(ExecContext& ctx, int64_t m, const float* dy, int64_t lddy,
                         const WeightRef& w, float* dx, int64_t lddx,
                         Accumulate acc = Accumulate::kOverwrite,
                         const LinearBackwardOptions& options = {}, const LowRank& low_rank = {});

// dW[out,in] += dY^T X; dbias[out] += column sums of dY (null: none). fp32 gradients.
void LinearBackwardWeight(ExecContext& ctx, int64_t m, int64_t out, int64_t in, const float* dy,
                          int64_t lddy, const float* x, int64_t ldx, float* dw, float* dbias);

// C[m,n] += the low-rank term, as a product of its own (same bits).
void LowRankAdd(ExecContext& ctx, int64_t m, int64_t n, const LowRank& low_rank, float* c,
                int64_t ldc);

// Low-rank adapter (LoRA, arXiv 2106.09685): Y += scale (X A^T) B^T, A [r,in], B [out,r].
// xa [m,r] receives X A^T (kept for the backward pass).
void LoraForward(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r, float scale,
                 const float* x, int64_t ldx, const float* a, const float* b, float* xa, float* y,
                 int64_t ldy);

// dA += scale (dY B)^T X, dB += scale dY^T (X A^T), dX += scale (dY B) A.
// xa [m,r] from the forward pass; dxa [m,r] receives dY B; dx may be null (input needs no
// gradient).
void LoraBackward(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r, float scale,
                  const float* x, int64_t ldx, const float* xa, const float* a, const float* b,
                  const float* dy, int64_t lddy, float* dxa, float* da, float* db, float* dx,
                  int64_t lddx);
// Its parts, for a dX that takes scale (dY B) A along as a low-rank term: dxa = dY B (without the
// scale), then dA and dB.
void LoraInnerGradient(ExecContext& ctx, int64_t m, int64_t out, int64_t r, const float* dy,
                       int64_t lddy, const float* b, float* dxa);
void LoraWeightGradients(ExecContext& ctx, int64_t m, int64_t in, int64_t out, int64_t r,
                         float scale, const float* x, int64_t ldx, const float* xa, const float* dy,
                         int64_t lddy, const float* dxa, float* da, float* db);

}  // namespace edgewise::kernels
