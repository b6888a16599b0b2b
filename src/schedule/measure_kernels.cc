// The rates that every profile holds: all forms of weights at two sizes.
#include <fmt/format.h>

#include "schedule/cost.h"
#include "schedule/measure.h"

namespace edgewise::schedule {
namespace {

using plan::KernelKind;
using plan::KernelRate;
using plan::Op;

constexpr int64_t kTokens = 512;
constexpr int64_t kSizes[] = {576, 2048};  // a small and a large model's hidden size
constexpr int64_t kVocabulary = 8192;

// Operations on square matrices of one size.
std::vector<Op> OpsOfSize(int64_t size) {
  std::vector<Op> ops;
  Op op;
  op.out = op.in = size;
  const auto linear = [&](bool packed) {
    for (const int64_t tokens : {kTokens, int64_t{1}}) {
      op.kind = KernelKind::kLinearForward;
      op.tokens = tokens;
      ops.push_back(op);
    }
    op.tokens = kTokens;
    op.kind = KernelKind::kLinearBackward;
    ops.push_back(op);
    if (!packed) return;
    op.kind = KernelKind::kLinearBackwardInt8;
    ops.push_back(op);
  };
  for (const int bits : {32, 16}) {
    op.bits = bits;
    linear(false);
  }
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    op.bits = bits;
    linear(true);
    op.sparsity = 0.5;
    for (const bool blocks : {false, true}) {
      op.blocks = blocks;
      linear(true);
    }
    op.sparsity = 0;
    op.blocks = false;
  }
  op.bits = 32;
  op.kind = KernelKind::kWeightGradient;
  ops.push_back(op);
  for (const int64_t rank : {8, 64}) {
    for (const KernelKind kind : {KernelKind::kLora, KernelKind::kLoraBackward}) {
      op.kind = kind;
      op.rank = rank;
      ops.push_back(op);
    }
  }
  op.rank = 0;
  op.out = kVocabulary;
  for (const int bits : {32, 16, 4, 8}) {
    op.bits = bits;
    op.kind = KernelKind::kHeadLoss;
    ops.push_back(op);
    op.kind = KernelKind::kHeadLossInt8;
    if (bits < 16) ops.push_back(op);
  }
  return ops;
}

std::vector<Op> OtherOps() {
  std::vector<Op> ops;
  Op op;
  op.tokens = kTokens;
  op.rank = 64;
  op.out = 16 * op.rank;
  op.in = 4 * op.rank;
  for (const KernelKind kind : {KernelKind::kAttention, KernelKind::kAttentionBackward}) {
    op.kind = kind;
    ops.push_back(op);
  }
  op.in = 0;
  for (const int64_t width : kSizes) {
    for (const KernelKind kind :
         {KernelKind::kElementwise, KernelKind::kNorm, KernelKind::kNormBackward,
          KernelKind::kRotary, KernelKind::kGate, KernelKind::kGateBackward}) {
      op.kind = kind;
      op.out = kind == KernelKind::kGate || kind == KernelKind::kGateBackward ? 4 * width : width;
      op.rank = kind == KernelKind::kRotary ? 64 : 0;
      ops.push_back(op);
    }
  }
  return ops;
}

}  // namespace

Result<std::vector<KernelRate>> MeasureKernels(ExecContext& ctx, const MeasureOptions& options) {
  std::vector<KernelRate> out;
  const auto measure = [&](const std::vector<Op>& ops) -> Status {
    for (const Op& op : ops) {
      if (options.stop != nullptr && options.stop->load()) {
        return {StatusCode::kInterrupted, "stopped while measuring this machine"};
      }
      // A form that cannot be made is left out of the profile.
      const Result<double> seconds = MeasureOp(ctx, op);
      if (!seconds.ok() || *seconds <= 0) continue;
      out.push_back({op.kind, op.bits, op.sparsity, op.blocks, op.tokens, op.out, op.in,
                     WorkOf(op) / *seconds, op.rank});
    }
    return Status::Ok();
  };
  for (const int64_t size : kSizes) {
    if (options.progress) options.progress(fmt::format("kernels on {} x {} weights", size, size));
    EW_RETURN_IF_ERROR(measure(OpsOfSize(size)));
  }
  EW_RETURN_IF_ERROR(measure(OtherOps()));
  return out;
}

}  // namespace edgewise::schedule
