// A linear layer with its optional low-rank adapter, forward and backward.
#pragma once

#include <cstdint>

#include "exec/context.h"
#include "kernels/linear.h"
#include "model/lora.h"
#include "model/parameters.h"
#include "model/part_times.h"
#include "model/weights.h"

namespace edgewise::model {

// Dropout on the adapter's input. Element i of the input is kept when the i-th number of the stream
// (seed, substream) says so: the same mask in the backward pass and on any number of threads.
struct Dropout {
  float p = 0;  // 0: off
  uint64_t seed = 0;
  uint64_t substream = 0;
  int64_t first = 0;  // element of the stream that element 0 is; a multiple of 4
};

// out[i] = x[i] kept / (1 - p).
void DropoutForward(ExecContext& ctx, const Dropout& dropout, int64_t count, const float* x,
                    float* out);
// dx[i] += dout[i] kept / (1 - p).
void DropoutBackward(ExecContext& ctx, const Dropout& dropout, int64_t count, const float* dout,
                     float* dx);

struct AdaptedLinear {
  const Linear& base;
  const LoraSlot* lora = nullptr;  // null: no adapter
  Dropout dropout;                 // training only
  kernels::LinearBackwardOptions backward;
  PartTimes* times = nullptr;
  int activation_bits = 0;  // PassOptions::activation_bits
  bool exact = false;       // PassOptions::exact_forward
};

// Working memory; the sizes are for `rows` rows.
struct AdapterScratch {
  float* dropped = nullptr;   // [rows, in], with dropout only
  float* ddropped = nullptr;  // [rows, in], backward with dropout only
  float* dxa = nullptr;       // [rows, r], backward only
  float* rounded = nullptr;   // [rows, in], with activation_bits only
};

// y [rows, out] (+)= x W^T + bias + scale (drop(x) A^T) B^T. xa [rows, r] receives drop(x) A^T.
void AdaptedForward(ExecContext& ctx, const AdaptedLinear& linear, int64_t rows, const float* x,
                    float* y, kernels::Accumulate acc, float* xa, const AdapterScratch& scratch);

// Only xa, with the bits of AdaptedForward: for a backward pass without the forward pass's own, or
// a product that adds what is returned (nothing without an adapter) to its result.
kernels::LowRank AdapterInput(ExecContext& ctx, const AdaptedLinear& linear, int64_t rows,
                              const float* x, float* xa, const AdapterScratch& scratch);

// Adds the wanted gradients to `grads` and dX to dx [rows, in] (overwrites or adds; null: the input
// needs no gradient). x, xa: as in the forward pass.
void AdaptedBackward(ExecContext& ctx, const AdaptedLinear& linear, const LinearGradients& grads,
                     int64_t rows, const float* x, const float* xa, const float* dy, float* dx,
                     kernels::Accumulate acc, const AdapterScratch& scratch);

}  // namespace edgewise::model
