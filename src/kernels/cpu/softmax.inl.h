// One block of logits of the head loss. See KernelTable::logits_step.
#pragma once

#include "kernels/cpu/elementwise.inl.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

float LogitsStep(int64_t rows, int64_t columns, float* z, int64_t ldz, float softcap, int64_t first,
                 const int32_t* targets, LogitsRow* state, float* correction, float* largest) {
  const Vec minus_inf = Set1(-__builtin_inff());
  float highest = 0;
  for (int64_t r = 0; r < rows; ++r, z += ldz) {
    Vec top = minus_inf;
    ForVectors(columns, [&](int64_t i, int64_t n) {
      Vec v = LoadUpTo(z + i, n);
      if (softcap > 0) {
        v = Set1(softcap) * Tanh(v * Set1(1.0f / softcap));
        StoreUpTo(z + i, v, n);
      }
      if (n < kLanes) v = SelectLess(Iota(), Set1(static_cast<float>(n)), v, minus_inf);
      top = Max(top, v);
    });
    LogitsRow& row = state[r];
    const int64_t target = targets[r] - first;
    if (target >= 0 && target < columns) row.target_logit = z[target];
    const float block_max = ReduceMax(top), old = row.max;
    largest[r] = block_max;
    float now = old;
    if (block_max > old) {
      now = block_max;
      int64_t best = 0;
      while (best + 1 < columns && z[best] != block_max) ++best;
      row.best = static_cast<int32_t>(first + best);
    }
    const Vec shift = Set1(now), cap = Set1(softcap > 0 ? 1.0f / softcap : 0.0f);
    Vec total = Set1(0.0f);
    ForVectors(columns, [&](int64_t i, int64_t n) {
      const Vec v = LoadUpTo(z + i, n);
      Vec p = Exp(v - shift);
      if (n < kLanes) p = SelectLess(Iota(), Set1(static_cast<float>(n)), p, Set1(0.0f));
      total = total + p;
      if (softcap > 0) p = p * (Set1(1.0f) - (v * cap) * (v * cap));
      StoreUpTo(z + i, p, n);
    });
    correction[r] = now == old ? 1.0f : ExpScalar(old - now);
    row.sum = row.sum * static_cast<double>(correction[r]) + static_cast<double>(ReduceAdd(total));
    row.max = now;
    const float bound = ExpScalar(block_max - now) / static_cast<float>(row.sum);
    // Written so that a NaN is never below the limit.
    if (!(bound <= highest)) highest = bound;
  }
  return highest;
}

void LogitsVjp(int64_t rows, int64_t columns, float* z, int64_t ldz, float softcap, int64_t first,
               const int32_t* targets, const LogitsRow* state, const float* scale) {
  for (int64_t r = 0; r < rows; ++r, z += ldz) {
    const Vec lse = Set1(state[r].lse), factor = Set1(scale[r]);
    const Vec cap = Set1(softcap > 0 ? 1.0f / softcap : 0.0f);
    const int64_t target = targets[r] - first;
    ForVectors(columns, [&](int64_t i, int64_t n) {
      Vec v = LoadUpTo(z + i, n);
      Vec slope = factor;
      if (softcap > 0) {
        const Vec t = Tanh(v * cap);
        v = Set1(softcap) * t;
        slope = slope * (Set1(1.0f) - t * t);
      }
      StoreUpTo(z + i, Exp(v - lse) * slope, n);
    });
    if (target < 0 || target >= columns) continue;
    float slope = scale[r];
    if (softcap > 0) {
      const float t = state[r].target_logit / softcap;
      slope *= 1.0f - t * t;
    }
    z[target] -= slope;
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
