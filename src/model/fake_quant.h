// Straight-through fake quantisation of activations, as in the code released with Edge-LLM (that of
// LLM-QAT, arXiv 2305.17888): values are rounded in the forward pass, and gradients pass as if they
// were not.
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/matmul.h"

namespace edgewise::model {

// Gradients do not pass where a value is this large (the forward pass does not clip there).
inline constexpr float kStraightThroughLimit = 2.0f;

// out [rows, n] = x rounded to `bits` >= 2 bits, symmetrically, one scale per row.
void FakeQuantize(ExecContext& ctx, int bits, int64_t rows, int64_t n, const float* x, float* out);

// dx[i] (+)= dy[i] where |x[i]| < kStraightThroughLimit, else nothing. dx may be dy.
void StraightThrough(ExecContext& ctx, int64_t count, const float* x, const float* dy, float* dx,
                     kernels::Accumulate acc);

}  // namespace edgewise::model
