#include "model/adapted_linear.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "kernels/matmul.h"
#include "model/fake_quant.h"

namespace edgewise::model {
namespace {

using kernels::Accumulate;
using kernels::WeightRef;
using plan::KernelKind;

constexpr int64_t kGrain = 1 << 14;  // a multiple of 4, the numbers in one block of the generator

// fn(i, factor) for every element, factor = 1 / (1 - p) or 0.
template <typename Fn>
void ForEachKept(ExecContext& ctx, const Dropout& dropout, int64_t count, Fn fn) {
  const float keep = 1.0f / (1.0f - dropout.p);
  const double threshold = static_cast<double>(dropout.p) * 0x1.0p32;
  const Rng rng(dropout.seed, RngStream::kDropout, dropout.substream);
  ctx.ParallelFor(count, kGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i += 4) {
      const auto random = rng.Block(static_cast<uint64_t>((dropout.first + i) / 4));
      for (int64_t j = i; j < std::min(i + 4, end); ++j) {
        fn(j, static_cast<double>(random[static_cast<size_t>(j - i)]) >= threshold ? keep : 0.0f);
      }
    }
  });
}

}  // namespace

void DropoutForward(ExecContext& ctx, const Dropout& dropout, int64_t count, const float* x,
                    float* out) {
  ForEachKept(ctx, dropout, count, [&](int64_t i, float factor) { out[i] = x[i] * factor; });
}

void DropoutBackward(ExecContext& ctx, const Dropout& dropout, int64_t count, const float* dout,
                     float* dx) {
  ForEachKept(ctx, dropout, count, [&](int64_t i, float factor) { dx[i] += dout[i] * factor; });
}

void AdaptedForward(ExecContext& ctx, const AdaptedLinear& linear, int64_t rows, const float* x,
                    float* y, Accumulate acc, float* xa, const AdapterScratch& scratch) {
  const WeightRef& w = linear.base.weight;
  const float* input = x;
  if (linear.activation_bits > 0) {
    FakeQuantize(ctx, linear.activation_bits, rows, w.cols, x, scratch.rounded);
    input = scratch.rounded;
  }
  const kernels::LowRank term = AdapterInput(ctx, linear, rows, x, xa, scratch);
  const PartTimer timer(linear.times, KernelKind::kLinearForward);
  if (linear.exact) {
    kernels::LinearForwardExact(ctx, rows, input, w.cols, w, linear.base.bias, y, w.rows, acc);
    kernels::LowRankAdd(ctx, rows, w.rows, term, y, w.rows);
  } else {
    kernels::LinearForward(ctx, rows, input, w.cols, w, linear.base.bias, y, w.rows, acc, term);
  }
}

kernels::LowRank AdapterInput(ExecContext& ctx, const AdaptedLinear& linear, int64_t rows,
                              const float* x, float* xa, const AdapterScratch& scratch) {
  if (linear.lora == nullptr) return {};
  const PartTimer timer(linear.times, KernelKind::kLora);
  const LoraSlot& s = *linear.lora;
  if (linear.dropout.p > 0) {
    DropoutForward(ctx, linear.dropout, rows * s.in, x, scratch.dropped);
    x = scratch.dropped;
  }
  kernels::MatMulNT(ctx, rows, s.r, s.in, 1.0f, x, s.in, WeightRef::Dense(s.a, s.r, s.in), xa, s.r);
  return {s.r, s.scale, xa, s.b};
}

void AdaptedBackward(ExecContext& ctx, const AdaptedLinear& linear, const LinearGradients& grads,
                     int64_t rows, const float* x, const float* xa, const float* dy, float* dx,
                     Accumulate acc, const AdapterScratch& scratch) {
  const WeightRef& w = linear.base.weight;
  const LoraSlot* const s = linear.lora;
  const bool rounds = linear.activation_bits > 0, drops = linear.dropout.p > 0;
  // What of dX comes through the adapter: with the base's part, or, where one of the two passes
  // through a mask, by itself.
  kernels::LowRank term;
  if (s != nullptr && (dx != nullptr || grads.lora_a != nullptr)) {
    const PartTimer timer(linear.times, KernelKind::kLoraBackward);
    kernels::LoraInnerGradient(ctx, rows, s->out, s->r, dy, s->out, s->b, scratch.dxa);
    term = {s->r, s->scale, scratch.dxa, nullptr, s->a, s->in};
  }
  if (dx != nullptr) {
    const bool exact = linear.backward.mode == kernels::BackwardMode::kExact;
    const PartTimer timer(linear.times,
                          exact ? KernelKind::kLinearBackward : KernelKind::kLinearBackwardInt8);
    kernels::LinearBackwardInput(ctx, rows, dy, w.rows, w, rounds ? scratch.rounded : dx, w.cols,
                                 rounds ? Accumulate::kOverwrite : acc, linear.backward,
                                 rounds || drops ? kernels::LowRank{} : term);
    if (rounds) StraightThrough(ctx, rows * w.cols, x, scratch.rounded, dx, acc);
  }
  if (grads.weight != nullptr) {
    const PartTimer timer(linear.times, KernelKind::kWeightGradient);
    kernels::LinearBackwardWeight(ctx, rows, w.rows, w.cols, dy, w.rows, x, w.cols, grads.weight,
                                  grads.bias);
  }
  if (s == nullptr) return;
  const PartTimer timer(linear.times, KernelKind::kLoraBackward);
  if (grads.lora_a != nullptr) {
    const float* input = x;
    if (drops) {
      DropoutForward(ctx, linear.dropout, rows * s->in, x, scratch.dropped);
      input = scratch.dropped;
    }
    kernels::LoraWeightGradients(ctx, rows, s->in, s->out, s->r, s->scale, input, s->in, xa, dy,
                                 s->out, scratch.dxa, grads.lora_a, grads.lora_b);
  }
  if (dx == nullptr || !(rounds || drops)) return;
  // With dropout the adapter's gradient passes through the mask before it joins dX.
  float* dinput = drops ? scratch.ddropped : dx;
  if (drops) std::fill_n(dinput, rows * s->in, 0.0f);
  kernels::LowRankAdd(ctx, rows, s->in, term, dinput, s->in);
  if (drops) DropoutBackward(ctx, linear.dropout, rows * s->in, dinput, dx);
}

}  // namespace edgewise::model
