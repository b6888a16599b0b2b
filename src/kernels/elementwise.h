// Row-wise and element-wise operations of a transformer block, forward and backward. fp32.
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/weight.h"

namespace edgewise::kernels {

// RMSNorm (arXiv 1910.07467) over the last axis: y = x rstd g, rstd = (mean x^2 + eps)^-1/2,
// g = weight, or 1 + weight (Gemma). x, y [rows, n] contiguous; rstd [rows] or null.
void RmsNormForward(ExecContext& ctx, int64_t rows, int64_t n, float eps, bool plus_one,
                    const float* x, const float* weight, float* y, float* rstd);
// dx (+)= gradient; dweight [n] += gradient, or null. dx may alias dy.
void RmsNormBackward(ExecContext& ctx, int64_t rows, int64_t n, bool plus_one, const float* x,
                     const float* weight, const float* rstd, const float* dy, float* dx,
                     bool accumulate_dx, float* dweight);

// The forward pass by the calling thread alone.
void RmsNormRows(Isa isa, int64_t rows, int64_t n, float eps, bool plus_one, const float* x,
                 const float* weight, float* y, float* rstd);

// Rotary embedding, "rotate half" pairing (i, i + D/2), in place on x [rows, heads, D] with row
// stride ldx; cos_table, sin_table [positions, D/2]; positions [rows]. inverse: rotate back
// (the gradient).
void RopeApply(ExecContext& ctx, int64_t rows, int64_t heads, int64_t head_dim, float* x,
               int64_t ldx, const int32_t* positions, const float* cos_table,
               const float* sin_table, bool inverse);

enum class Activation { kSilu, kGeluTanh, kGelu };

// Gated unit: out = act(gate) * up. All [rows, n] contiguous; out may alias gate or up.
void GatedForward(ExecContext& ctx, Activation act, int64_t count, const float* gate,
                  const float* up, float* out);
// The same by the calling thread alone.
void GatedRows(Isa isa, Activation act, int64_t count, const float* gate, const float* up,
               float* out);
// dgate, dup overwritten; they may alias gate and up, or dout.
void GatedBackward(ExecContext& ctx, Activation act, int64_t count, const float* gate,
                   const float* up, const float* dout, float* dgate, float* dup);

// out[t,:] = scale * table[ids[t],:]; table [vocab, hidden] in any form; ids checked by the caller.
void EmbeddingForward(ExecContext& ctx, int64_t tokens, const int32_t* ids, const WeightRef& table,
                      float scale, float* out);
// dtable[ids[t],:] += scale * dout[t,:]; the order of the additions is that of t.
void EmbeddingBackward(ExecContext& ctx, int64_t tokens, const int32_t* ids, int64_t vocab,
                       int64_t hidden, float scale, const float* dout, float* dtable);

// y += x; y = x * s.
void AddInPlace(ExecContext& ctx, int64_t count, const float* x, float* y);

// Sum of squares in double, in a fixed order.
double SumSquares(ExecContext& ctx, int64_t count, const float* x);
// True when every element is finite.
bool AllFinite(ExecContext& ctx, int64_t count, const float* x);

}  // namespace edgewise::kernels
