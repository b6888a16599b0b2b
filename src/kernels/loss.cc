#include "kernels/loss.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/ref/cross_entropy.h"
#include "kernels/weight_rows.h"

namespace edgewise::kernels {

HeadLossResult HeadLoss(ExecContext& ctx, const HeadLossArgs& args) {
  static_cast<void>(ctx);
  const int64_t h = args.head.cols, vocab = args.head.rows;
  std::vector<float> head(static_cast<size_t>(vocab * h));
  WeightRowsToF32(args.head, 0, vocab, head.data());
  if (args.dhidden != nullptr) {
    std::memset(args.dhidden, 0, static_cast<size_t>(args.tokens * h) * sizeof(float));
  }
  HeadLossResult result;
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (int64_t t = 0; t < args.tokens; ++t) {
    ref::HeadLossProblem<float> p;
    p.tokens = 1;
    p.hidden_size = h;
    p.vocab = vocab;
    p.hidden = args.hidden + t * h;
    p.head = head.data();
    p.targets = args.targets + t;
    p.weights = args.weights == nullptr ? nullptr : args.weights + t;
    p.softcap = args.softcap;
    p.grad_scale = args.grad_scale;
    p.lora_r = args.lora_r;
    p.lora_scale = args.lora_scale;
    p.lora_a = args.lora_a;
    p.lora_b = args.lora_b;
    p.dhidden = args.dhidden == nullptr ? nullptr : args.dhidden + t * h;
    p.dhead = args.dhead;
    p.dlora_a = args.dlora_a;
    p.dlora_b = args.dlora_b;
    p.token_loss = args.token_loss == nullptr ? nullptr : args.token_loss + t;
    p.logits = logits.data();
    result.loss_sum += ref::HeadLoss<float>(p);
    if (args.targets[t] < 0) continue;
    ++result.labelled;
    result.weight_sum += args.weights == nullptr ? 1.0 : args.weights[t];
    int64_t best = 0;
    for (int64_t v = 1; v < vocab; ++v) {
      if (logits[static_cast<size_t>(v)] > logits[static_cast<size_t>(best)]) best = v;
    }
    if (best == args.targets[t]) ++result.correct;
  }
  return result;
}

void LogSoftmaxAt(ExecContext& ctx, int64_t rows, int64_t vocab, const float* logits,
                  const int32_t* targets, double* logprob) {
  ctx.ParallelFor(rows, 1, [&](int64_t r, int64_t, int) {
    const float* z = logits + r * vocab;
    double max = z[0];
    for (int64_t v = 1; v < vocab; ++v) max = z[v] > max ? z[v] : max;
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(z[v] - max);
    logprob[r] = z[targets[r]] - max - std::log(sum);
  });
}

}  // namespace edgewise::kernels
