// LM head and loss with all logits of some rows in memory: the plain form of kernels::HeadLoss, and
// the one that can learn from another model's distribution.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/status.h"
#include "exec/context.h"
#include "kernels/loss.h"

namespace edgewise::model {

// A teacher's distribution of the next token (distillation, arXiv 1503.02531). The loss of a token
// becomes (1 - weight) times its cross-entropy plus weight times KL(teacher || model).
struct Teacher {
  // Logits of these tokens of the batch -> logits [tokens.size(), vocab].
  std::function<Status(std::span<const int64_t> tokens, float* logits)> logits;
  double weight = 0;  // in [0, 1]
};

// As kernels::HeadLoss, but for skip_below, which is not used. Rows are taken `chunk` at a time (0:
// all at once); their logits and, with a teacher (or null), as many of the teacher's are held.
// Gradients pass through the head as `backward` says. Error: the teacher's.
Result<kernels::HeadLossResult> WholeHeadLoss(ExecContext& ctx, const kernels::HeadLossArgs& args,
                                              const kernels::LinearBackwardOptions& backward,
                                              int64_t chunk, const Teacher* teacher);

// Bytes that it takes for as many labelled rows; of `args` the head, the LoRA, its gradients and
// grad_scale count. Every buffer at once, which is when the gradients are made.
int64_t WholeHeadBytes(const kernels::HeadLossArgs& args, int64_t rows, int64_t chunk,
                       const Teacher* teacher);

}  // namespace edgewise::model
