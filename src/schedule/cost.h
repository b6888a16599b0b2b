// What an operation and a stage cost on a device.
//
// On a measured device the rates are those of the kernels themselves, caches included. On a
// described one (a data sheet: rates of the arithmetic, sizes and bandwidths of the levels) the
// traffic between on-chip memory and DRAM is that of the best tiling (BestTiling), and an operation
// takes as long as its slowest stream: max(compute, each level) (arXiv 2406.15758, Eq. 3).
#pragma once

#include <string>

#include "plan/device.h"
#include "plan/workload.h"

namespace edgewise::schedule {

struct OpCost {
  double seconds = 0;
  double compute_seconds = 0;
  double memory_seconds = 0;  // between the on-chip level and memory; 0: part of the measured rate
  std::string bound;          // "compute" or the level that limits it
};

// The work of one operation of this kind and size, in the unit of Op::gops (which may stand for
// several of them).
double WorkOf(const plan::Op& op);

// The profile's entry for an operation of exactly this form and size, or null.
const plan::KernelRate* ExactRate(const plan::Device& device, const plan::Op& op);

// 10^9 operations (or bytes) a second of the kind on such weights: that of ExactRate, else from the
// nearest entries of the profile, log-linear in the size of the matrix, linear in sparsity for the
// time. Kinds that the profile does not know are taken as the nearest kind it does. 0: none.
double Rate(const plan::Device& device, const plan::Op& op);
OpCost CostOf(const plan::Device& device, const plan::Op& op);
OpCost CostOf(const plan::Device& device, const plan::Stage& stage);

// Bytes that cross the border of an on-chip memory of `sram_bytes` in the product of `op`, for the
// best loop order and tiles: out x in weights of weight_bytes, int8 or fp32 rows (activation_bytes
// a value).
struct Tiling {
  int64_t token_tile = 0, out_tile = 0;
  bool weights_outside = false;  // loop order: weights stay while tokens pass, or the other way
  double bytes = 0;
};
Tiling BestTiling(const plan::Op& op, int64_t sram_bytes, double activation_bytes);

}  // namespace edgewise::schedule
