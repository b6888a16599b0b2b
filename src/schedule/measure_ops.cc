// How long single operations take: every kind on operands of its own.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>

#include "base/aligned_buffer.h"
#include "base/median.h"
#include "base/rng.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/loss.h"
#include "kernels/packed/random_packed.h"
#include "schedule/cost.h"
#include "schedule/measure.h"

namespace edgewise::schedule {
namespace {

using kernels::WeightRef;
using plan::KernelKind;
using plan::Op;

// A head's rate does not depend on how long the vocabulary is beyond this.
constexpr int64_t kMaxVocabulary = 8192;
constexpr int kFewestRuns = 3, kMostRuns = 15;
constexpr double kEnoughSeconds = 0.03;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of the median run; the first one, which touches memory, does not count. A median, since a
// step meets what else the machine does as often as a run does.
template <typename Fn>
double MedianSeconds(Fn fn) {
  fn();
  std::vector<double> seconds;
  double spent = 0;
  for (int run = 0; run < kMostRuns && (run < kFewestRuns || spent < kEnoughSeconds); ++run) {
    const double start = Now();
    fn();
    seconds.push_back(Now() - start);
    spent += seconds.back();
  }
  return Median(std::move(seconds));
}

FloatBuffer RandomFloats(int64_t n, uint64_t seed) {
  FloatBuffer out(n);
  constexpr int64_t kDrawn = 1 << 16;
  Rng rng(seed, RngStream::kTest);
  for (int64_t i = 0; i < std::min(n, kDrawn); ++i) out[i] = rng.NextFloat() - 0.5f;
  for (int64_t i = kDrawn; i < n; i += kDrawn) {
    std::copy_n(out.data(), std::min(kDrawn, n - i), out.data() + i);
  }
  return out;
}

// More than the caches between the rows of one run and of the next.
constexpr int64_t kRowBytes = int64_t{12} << 20;

// Rows that are not where the last run left them, where `bytes` leave room for that: in a step
// other layers' rows lie between.
class Rows {
 public:
  Rows(int64_t n, uint64_t seed, int64_t bytes)
      : n_(n), copies_(std::clamp<int64_t>(bytes / (n * 4), 1, 16)) {
    rows_ = RandomFloats(n * copies_, seed);
  }
  float* Next() {
    at_ = (at_ + 1) % copies_;
    return rows_.data() + at_ * n_;
  }

 private:
  int64_t n_, copies_, at_ = 0;
  FloatBuffer rows_;
};

// Arrays of Rows that an operation is measured on.
int64_t Arrays(KernelKind kind) {
  switch (kind) {
    case KernelKind::kNormBackward:
    case KernelKind::kGate:
      return 3;
    case KernelKind::kLoraBackward:
      return 4;
    case KernelKind::kGateBackward:
      return 5;
    default:
      return 2;
  }
}

// Random weights in the form of the operation.
struct Weights {
  AlignedBuffer dense;
  std::unique_ptr<kernels::PackedMatrix> packed;
  WeightRef ref;
};

Result<Weights> MakeWeights(const Op& op, int64_t rows) {
  Weights w;
  if (op.bits >= 16) {
    const FloatBuffer row = RandomFloats(op.in, 1);
    const DType dtype = op.bits == 32 ? DType::kF32 : DType::kBF16;
    const size_t row_bytes = static_cast<size_t>(op.in) * DTypeBytes(dtype);
    w.dense = AlignedBuffer(static_cast<size_t>(rows) * row_bytes);
    auto* to = static_cast<std::byte*>(w.dense.data());
    for (int64_t r = 0; r < rows; ++r, to += row_bytes) {
      ConvertFromF32(dtype, row.data(), to, op.in);
    }
    w.ref = {rows, op.in, dtype, w.dense.data(), op.in, nullptr};
    return w;
  }
  kernels::PackedFormat f;
  f.rows = rows / kernels::kTileRows * kernels::kTileRows;
  f.cols = op.in;
  f.bits = op.bits;
  f.group = op.group >= 0 ? op.group : op.bits == 8 || op.sparsity > 0 ? 0 : 128;
  if (op.sparsity > 0) {
    f.structure = op.blocks ? kernels::Structure::kBlock : kernels::Structure::kUnstructured;
    if (op.blocks) f.block_cols = 64;
    f.group = 0;
  }
  EW_ASSIGN(kernels::PackedMatrix packed, kernels::RandomPackedMatrix(f, 1, 1 - op.sparsity));
  w.packed = std::make_unique<kernels::PackedMatrix>(std::move(packed));
  w.ref = w.packed->Ref();
  return w;
}

Result<double> LinearSeconds(ExecContext& ctx, const Op& op, int64_t row_bytes) {
  const int64_t n = op.tokens;
  const int64_t widest = std::max(op.in, op.out);
  Rows x(n * widest, 2, row_bytes), y(n * widest, 3, row_bytes);
  if (op.kind == KernelKind::kWeightGradient) {
    FloatBuffer dw = FloatBuffer::Zeros(op.out * op.in);
    return MedianSeconds([&] {
      kernels::LinearBackwardWeight(ctx, n, op.out, op.in, y.Next(), op.out, x.Next(), op.in,
                                    dw.data(), nullptr);
    });
  }
  EW_ASSIGN(const Weights w, MakeWeights(op, op.out));
  const int64_t out = w.ref.rows;
  if (op.kind == KernelKind::kLinearForward) {
    return MedianSeconds(
        [&] { kernels::LinearForward(ctx, n, x.Next(), op.in, w.ref, nullptr, y.Next(), out); });
  }
  kernels::LinearBackwardOptions options;
  if (op.kind == KernelKind::kLinearBackwardInt8) {
    options.mode = kernels::BackwardMode::kInteger;
    options.stochastic = true;
  }
  return MedianSeconds([&] {
    kernels::LinearBackwardInput(ctx, n, x.Next(), out, w.ref, y.Next(), op.in,
                                 kernels::Accumulate::kOverwrite, options);
  });
}

double LoraSeconds(ExecContext& ctx, const Op& op, int64_t row_bytes) {
  const int64_t n = op.tokens, r = std::max<int64_t>(op.rank, 1);
  const FloatBuffer a = RandomFloats(r * op.in, 2), b = RandomFloats(op.out * r, 3);
  Rows x(n * op.in, 1, row_bytes), y(n * op.out, 4, row_bytes), xa(n * r, 5, row_bytes);
  if (op.kind == KernelKind::kLora) {
    return MedianSeconds([&] {
      kernels::LoraForward(ctx, n, op.in, op.out, r, 0.1f, x.Next(), op.in, a.data(), b.data(),
                           xa.Next(), y.Next(), op.out);
    });
  }
  FloatBuffer da = FloatBuffer::Zeros(r * op.in), db = FloatBuffer::Zeros(op.out * r), dxa(n * r);
  Rows dx(n * op.in, 6, row_bytes);
  return MedianSeconds([&] {
    kernels::LoraBackward(ctx, n, op.in, op.out, r, 0.1f, x.Next(), op.in, xa.Next(), a.data(),
                          b.data(), y.Next(), op.out, dxa.data(), da.data(), db.data(), dx.Next(),
                          op.in);
  });
}

double AttentionSeconds(ExecContext& ctx, const Op& op) {
  const int64_t n = op.tokens, q = op.out, kv = op.in, dim = std::max<int64_t>(op.rank, 1);
  const kernels::AttentionShape shape{q / dim, kv / dim, dim, 0.125f, 0};
  const std::vector<int32_t> first(static_cast<size_t>(n), 0);
  const kernels::AttentionMask mask{first.data(), 0};
  const FloatBuffer qs = RandomFloats(n * q, 1), ks = RandomFloats(n * kv, 2),
                    vs = RandomFloats(n * kv, 3);
  FloatBuffer os(n * q), lse(shape.q_heads * n);
  const auto forward = [&] {
    kernels::AttentionForward(ctx, shape, mask, n, qs.data(), q, ks.data(), vs.data(), kv,
                              os.data(), q, lse.data());
  };
  if (op.kind == KernelKind::kAttention) return MedianSeconds(forward);
  forward();
  const FloatBuffer dout = RandomFloats(n * q, 4);
  FloatBuffer dq(n * q), dk(n * kv), dv(n * kv);
  return MedianSeconds([&] {
    kernels::AttentionBackward(ctx, shape, mask, n, qs.data(), q, ks.data(), vs.data(), kv,
                               os.data(), dout.data(), q, lse.data(), dq.data(), q, dk.data(),
                               dv.data(), kv);
  });
}

// Of a vocabulary of op.out; only a part of it is measured.
Result<double> HeadSeconds(ExecContext& ctx, const Op& op) {
  const int64_t vocab = std::min(op.out, kMaxVocabulary), n = op.tokens, r = op.rank;
  EW_ASSIGN(const Weights w, MakeWeights(op, vocab));
  // Of unit variance, as behind a norm: which blocks may be skipped depends on it.
  FloatBuffer x = RandomFloats(n * op.in, 2);
  for (float& v : x.span()) v *= std::sqrt(12.0f);
  FloatBuffer dx(n * op.in);
  std::vector<int32_t> targets(static_cast<size_t>(n));
  for (int64_t t = 0; t < n; ++t) {
    targets[static_cast<size_t>(t)] = static_cast<int32_t>(t * 7 % w.ref.rows);
  }
  kernels::HeadLossArgs args;
  args.tokens = n;
  args.hidden = x.data();
  args.head = w.ref;
  args.targets = targets.data();
  args.grad_scale = 1.0f / static_cast<float>(n);
  args.dhidden = dx.data();
  // Probabilities are spread over fewer entries here.
  args.skip_below = op.skip_below * static_cast<float>(op.out) / static_cast<float>(w.ref.rows);
  if (op.kind == KernelKind::kHeadLossInt8) args.backward = kernels::BackwardMode::kInteger;
  FloatBuffer a, b, da, db;
  if (r > 0) {
    a = RandomFloats(r * op.in, 3);
    b = RandomFloats(w.ref.rows * r, 4);
    da = FloatBuffer::Zeros(r * op.in);
    db = FloatBuffer::Zeros(w.ref.rows * r);
    args.lora_r = r;
    args.lora_scale = 0.1f;
    args.lora_a = a.data();
    args.lora_b = b.data();
    args.dlora_a = da.data();
    args.dlora_b = db.data();
  }
  double seconds = 0;
  if (op.skip_below > 0 && op.kept_share >= 0) {
    // With all blocks and with none in the gradient.
    args.skip_below = 0;
    const double all = MedianSeconds([&] { kernels::HeadLoss(ctx, args); });
    args.skip_below = std::numeric_limits<float>::max();
    const double none = MedianSeconds([&] { kernels::HeadLoss(ctx, args); });
    seconds = none + std::min(op.kept_share, 1.0) * std::max(0.0, all - none);
  } else {
    seconds = MedianSeconds([&] { kernels::HeadLoss(ctx, args); });
  }
  return seconds * static_cast<double>(op.out) / static_cast<double>(w.ref.rows);
}

double ByteSeconds(ExecContext& ctx, const Op& op, int64_t row_bytes) {
  const int64_t n = op.tokens, width = op.out, count = n * width;
  Rows x(count, 1, row_bytes), y(count, 2, row_bytes);
  const FloatBuffer gain = RandomFloats(width, 4);
  switch (op.kind) {
    case KernelKind::kNorm: {
      FloatBuffer rstd(n);
      return MedianSeconds([&] {
        kernels::RmsNormForward(ctx, n, width, 1e-5f, false, x.Next(), gain.data(), y.Next(),
                                rstd.data());
      });
    }
    case KernelKind::kNormBackward: {
      const FloatBuffer rstd = RandomFloats(n, 5);
      Rows d(count, 3, row_bytes);
      return MedianSeconds([&] {
        kernels::RmsNormBackward(ctx, n, width, false, x.Next(), gain.data(), rstd.data(), d.Next(),
                                 y.Next(), true, nullptr);
      });
    }
    case KernelKind::kRotary: {
      const int64_t dim = std::max<int64_t>(op.rank, 2);
      std::vector<int32_t> positions(static_cast<size_t>(n));
      for (int64_t t = 0; t < n; ++t) positions[static_cast<size_t>(t)] = static_cast<int32_t>(t);
      const FloatBuffer table = RandomFloats(n * dim / 2, 6);
      return MedianSeconds([&] {
        kernels::RopeApply(ctx, n, width / dim, dim, y.Next(), width, positions.data(),
                           table.data(), table.data(), false);
      });
    }
    case KernelKind::kGate: {
      Rows u(count, 3, row_bytes);
      return MedianSeconds([&] {
        kernels::GatedForward(ctx, kernels::Activation::kSilu, count, x.Next(), u.Next(), y.Next());
      });
    }
    case KernelKind::kGateBackward: {
      Rows u(count, 3, row_bytes), d(count, 5, row_bytes), z(count, 6, row_bytes);
      return MedianSeconds([&] {
        kernels::GatedBackward(ctx, kernels::Activation::kSilu, count, x.Next(), u.Next(), d.Next(),
                               y.Next(), z.Next());
      });
    }
    default:
      return MedianSeconds([&] { std::copy_n(x.Next(), count, y.Next()); });
  }
}

}  // namespace

Result<double> MeasureOp(ExecContext& ctx, const Op& op, int64_t room) {
  if (op.tokens < 1 || op.out < 1) return InvalidArgument("an operation of no size");
  const int64_t row_bytes = room == 0 ? kRowBytes : std::min(kRowBytes, room / Arrays(op.kind));
  switch (op.kind) {
    case KernelKind::kLinearForward:
    case KernelKind::kLinearBackward:
    case KernelKind::kLinearBackwardInt8:
    case KernelKind::kWeightGradient:
      return LinearSeconds(ctx, op, row_bytes);
    case KernelKind::kLora:
    case KernelKind::kLoraBackward:
      return LoraSeconds(ctx, op, row_bytes);
    case KernelKind::kAttention:
    case KernelKind::kAttentionBackward:
      return AttentionSeconds(ctx, op);
    case KernelKind::kHeadLoss:
    case KernelKind::kHeadLossInt8:
      return HeadSeconds(ctx, op);
    default:
      return ByteSeconds(ctx, op, row_bytes);
  }
}

Status MeasureMissing(ExecContext& ctx, const plan::Workload& workload, plan::Device* device,
                      int64_t room) {
  for (const plan::Stage& stage : workload.stages) {
    for (const Op& op : stage.ops) {
      if (op.gops <= 0 || op.kind == KernelKind::kOptimizer) continue;
      if (ExactRate(*device, op) != nullptr) continue;
      Op one = op;
      // An operation that stands for several of its kind: the work of a single one.
      one.gops = WorkOf(op);
      EW_ASSIGN(const double seconds, MeasureOp(ctx, one, room));
      device->kernels.push_back({op.kind, op.bits, op.sparsity, op.blocks, op.tokens, op.out, op.in,
                                 one.gops / std::max(seconds, 1e-9), op.rank});
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::schedule
