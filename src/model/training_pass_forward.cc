// Passes without gradients: parts of the model, logits.
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "model/held_weights.h"
#include "model/training_pass_impl.h"

namespace edgewise::model {

Status TrainingPass::Forward(const TokenBatch& batch, LayerRange range, const LoraAdapter* lora,
                             float* hidden, int activation_bits, bool exact_forward) {
  return impl_->RunInPlace(batch, range, lora, activation_bits, exact_forward, nullptr, nullptr,
                           hidden);
}

Status TrainingPass::ForwardLayer(const TokenBatch& batch, int64_t layer,
                                  const LayerWeights* weights, LinearObserver* observer,
                                  float* hidden) {
  return impl_->RunInPlace(batch, {layer, layer + 1}, nullptr, 0, false, weights, observer, hidden);
}

// Layers without saved state; `weights` (of every layer in the range) instead of the model's.
Status TrainingPass::Impl::RunInPlace(const TokenBatch& batch, LayerRange range,
                                      const LoraAdapter* lora, int activation_bits,
                                      bool exact_forward, const LayerWeights* weights,
                                      LinearObserver* observer, float* hidden) {
  PassOptions options;
  options.begin = range.begin;
  options.end = range.end;
  options.start_hidden = hidden;
  options.lora = lora;
  options.activation_bits = activation_bits;
  options.exact_forward = exact_forward;
  options.linears = observer;
  options.mlp_rows = mlp_rows;
  if (range.end < 0) return InvalidArgument(fmt::format("layers up to {}", range.end));
  EW_RETURN_IF_ERROR(CheckOptions(options));
  EW_RETURN_IF_ERROR(Check(batch));
  Carver plan_activations, plan_scratch;
  LayOut(config(), max_tokens, options, plan_activations, plan_scratch);
  EW_RETURN_IF_ERROR(Reserve(activations, plan_activations.high(), "activations"));
  EW_RETURN_IF_ERROR(Reserve(scratch, plan_scratch.high(), "scratch"));
  Carver carve_activations(activations.data()), carve_scratch(scratch.data());
  const PassLayout layout = LayOut(config(), max_tokens, options, carve_activations, carve_scratch);
  BlockActivations acts = layout.shared;
  acts.x_mid = hidden;
  if (weights == nullptr) ExpectPass(model, {.begin = range.begin, .end = range.end});
  for (int64_t layer = range.begin; layer < range.end; ++layer) {
    std::optional<HeldWeights> held;
    if (weights == nullptr) {
      EW_ASSIGN(HeldWeights taken, HeldWeights::Layer(model, layer));
      held.emplace(std::move(taken));
    }
    const Block own = BlockAt(layer, options);
    const Block block{own.config,
                      own.layer,
                      weights != nullptr ? *weights : own.weights,
                      own.rope,
                      own.lora,
                      own.dropout,
                      observer,
                      {},
                      nullptr,
                      own.activation_bits,
                      own.exact_forward,
                      layout.mlp_rows};
    BlockForward(ctx, block, Rows(batch, layer), hidden, hidden, acts, layout.scratch);
  }
  return Status::Ok();
}

Status TrainingPass::Embed(const TokenBatch& batch, float* hidden) {
  EW_RETURN_IF_ERROR(impl_->Check(batch));
  return EmbedTokens(impl_->ctx, impl_->model, batch.ids, hidden);
}

Status TrainingPass::Logits(int64_t rows, const float* hidden, float* logits,
                            const ExitHead& head) {
  Impl& p = *impl_;
  const ModelConfig& c = p.config();
  if (rows < 0 || rows > p.max_tokens) {
    return InvalidArgument(
        fmt::format("{} rows; this pass was planned for up to {}", rows, p.max_tokens));
  }
  Carver plan;
  plan.Floats(rows * c.hidden);
  plan.Floats(rows * head.lora_r);
  EW_RETURN_IF_ERROR(Reserve(p.scratch, plan.used(), "scratch"));
  Carver carver(p.scratch.data());
  float* normed = carver.Floats(rows * c.hidden);
  float* xa = carver.Floats(rows * head.lora_r);
  return ComputeLogits(p.ctx, p.model, rows, hidden, normed, xa, logits, head);
}

Status ComputeLogits(ExecContext& ctx, const Model& model, int64_t rows, const float* hidden,
                     float* normed, float* xa, float* logits, const ExitHead& head) {
  const ModelConfig& c = model.config();
  kernels::RmsNormForward(ctx, rows, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one,
                          hidden, head.norm != nullptr ? head.norm : model.weights().final_norm,
                          normed, nullptr);
  if (head.head != nullptr) {
    kernels::LinearForward(ctx, rows, normed, c.hidden, *head.head, nullptr, logits, c.vocab);
  } else {
    EW_RETURN_IF_ERROR(HeadForward(ctx, model, rows, normed, logits));
  }
  if (head.lora_r > 0) {
    kernels::LoraForward(ctx, rows, c.hidden, c.vocab, head.lora_r, head.lora_scale, normed,
                         c.hidden, head.lora_a, head.lora_b, xa, logits, c.vocab);
  }
  if (c.logit_softcap <= 0) return Status::Ok();
  const float cap = c.logit_softcap;
  ctx.ParallelFor(rows * c.vocab, 1 << 14, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
  });
  return Status::Ok();
}

}  // namespace edgewise::model
