#include "model/training_pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <new>
#include <optional>

#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "model/block.h"
#include "model/held_weights.h"
#include "model/pass_layout.h"
#include "tensor/token_batch.h"

namespace edgewise::model {
namespace {

using kernels::WeightRef;

constexpr int64_t kMaxTokens = int64_t{1} << 30;
constexpr int64_t kTeacherRows = 32;  // whose logits, and a teacher's, are held at a time

// Adds the seconds from one call to the next to what the call names.
class Stopwatch {
 public:
  explicit Stopwatch(bool on) : on_(on) { AddTo(nullptr); }
  void AddTo(double* seconds) {
    if (!on_) return;
    const auto now = std::chrono::steady_clock::now();
    if (seconds != nullptr) *seconds += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  bool on_;
  std::chrono::steady_clock::time_point last_;
};

// A buffer that is given back before a larger one is taken.
Status Reserve(AlignedBuffer& buffer, int64_t bytes, const char* what) {
  if (static_cast<int64_t>(buffer.size()) >= bytes) return Status::Ok();
  buffer.Reset();
  try {
    buffer = AlignedBuffer(static_cast<size_t>(bytes));
  } catch (const std::bad_alloc&) {
    return OutOfMemory(fmt::format("there is no memory for {} bytes of {}", bytes, what));
  }
  return Status::Ok();
}

}  // namespace

struct TrainingPass::Impl {
  ExecContext& ctx;
  const Model& model;
  int64_t max_tokens;
  RopeTables rope;
  AlignedBuffer activations, scratch;
  // first_key of each window length in the model, for the batch at hand.
  std::map<int64_t, std::vector<int32_t>> first_keys;

  const ModelConfig& config() const { return model.config(); }

  Status Check(const TokenBatch& batch);
  Status CheckOptions(const PassOptions& options) const;
  BlockRows Rows(const TokenBatch& batch, int64_t layer) const;
  Block BlockAt(int64_t layer, const LoraAdapter* lora, const Dropout& dropout) const;
  Block BlockAt(int64_t layer, const PassOptions& options) const;
  Status RunInPlace(const TokenBatch& batch, LayerRange range, const LoraAdapter* lora,
                    int activation_bits, const LayerWeights* weights, LinearObserver* observer,
                    float* hidden);
  Result<kernels::HeadLossResult> Head(const TokenBatch& batch, const PassOptions& options,
                                       const PassLayout& layout);
  Result<kernels::HeadLossResult> Loss(const kernels::HeadLossArgs& args, const PassOptions& o);
};

Status TrainingPass::Impl::Check(const TokenBatch& batch) {
  const int64_t n = batch.size();
  if (n < 1 || n > max_tokens) {
    return InvalidArgument(
        fmt::format("a batch of {} tokens; this pass was planned for 1 .. {}", n, max_tokens));
  }
  const auto size = static_cast<size_t>(n);
  if (batch.positions.size() != size || batch.first_key.size() != size ||
      batch.targets.size() != size) {
    return InvalidArgument("the arrays of the batch differ in length");
  }
  const int64_t limit = std::max(config().max_positions, max_tokens);
  int32_t max_position = 0;
  for (size_t t = 0; t < size; ++t) {
    if (batch.ids[t] < 0 || batch.ids[t] >= config().vocab || batch.targets[t] >= config().vocab) {
      return BadInput(fmt::format(
          "token {} of the batch has id {} and target {}, the model's vocabulary has {}: the "
          "tokenizer does not belong to this model",
          t, batch.ids[t], batch.targets[t], config().vocab));
    }
    if (batch.positions[t] < 0 || batch.positions[t] >= limit) {
      return BadInput(
          fmt::format("token {} has position {}, the limit is {}", t, batch.positions[t], limit));
    }
    const int32_t previous = t == 0 ? 0 : batch.first_key[t - 1];
    if (batch.first_key[t] < previous || static_cast<size_t>(batch.first_key[t]) > t) {
      return InvalidArgument(
          fmt::format("token {} cannot see keys from {}", t, batch.first_key[t]));
    }
    max_position = std::max(max_position, batch.positions[t]);
  }
  rope.Ensure(config(), std::max<int64_t>(max_position + 1, max_tokens));
  for (const LayerConfig& layer : config().layers) first_keys[layer.window].clear();
  for (auto& [window, keys] : first_keys) {
    keys = batch.first_key;
    for (int64_t t = 0; window > 0 && t < n; ++t) {
      auto& key = keys[static_cast<size_t>(t)];
      key = static_cast<int32_t>(std::max<int64_t>(key, t - window + 1));
    }
  }
  return Status::Ok();
}

Status TrainingPass::Impl::CheckOptions(const PassOptions& o) const {
  const int64_t layers = config().num_layers();
  const int64_t end = o.end < 0 ? layers : o.end;
  if (o.begin < 0 || o.begin > end || end > layers) {
    return InvalidArgument(
        fmt::format("layers [{}, {}) of a model with {}", o.begin, o.end, layers));
  }
  if (o.begin > 0 && o.start_hidden == nullptr) {
    return InvalidArgument(fmt::format("layers from {} need the hidden state there", o.begin));
  }
  if (o.lora != nullptr && o.lora->num_layers() != layers) {
    return InvalidArgument(fmt::format("the adapter is for {} layers, the model has {}",
                                       o.lora->num_layers(), layers));
  }
  if (o.gradients != nullptr && static_cast<int64_t>(o.gradients->layers.size()) != layers) {
    return InvalidArgument("the gradients belong to another model");
  }
  if (o.activation_bits != 0 && (o.activation_bits < 2 || o.activation_bits > 16)) {
    return InvalidArgument(fmt::format("activations of {} bits", o.activation_bits));
  }
  if (!(o.dropout >= 0 && o.dropout < 1)) {
    return InvalidArgument(fmt::format("dropout {} is not in [0, 1)", o.dropout));
  }
  return Status::Ok();
}

BlockRows TrainingPass::Impl::Rows(const TokenBatch& batch, int64_t layer) const {
  const int64_t window = config().layers[static_cast<size_t>(layer)].window;
  return {batch.size(), batch.positions.data(), first_keys.at(window).data()};
}

Block TrainingPass::Impl::BlockAt(int64_t layer, const LoraAdapter* lora,
                                  const Dropout& dropout) const {
  const LayerConfig& description = config().layers[static_cast<size_t>(layer)];
  return {
      config(), layer,  model.weights().layers[static_cast<size_t>(layer)], rope[description.rope],
      lora,     dropout};
}

Block TrainingPass::Impl::BlockAt(int64_t layer, const PassOptions& o) const {
  Block block = BlockAt(layer, layer >= o.lora_begin ? o.lora : nullptr,
                        {o.dropout, o.dropout_seed, o.dropout_key});
  block.observer = o.linears;
  block.backward = o.backward;
  block.times = o.times;
  block.activation_bits = o.activation_bits;
  return block;
}

Result<kernels::HeadLossResult> TrainingPass::Impl::Loss(const kernels::HeadLossArgs& args,
                                                         const PassOptions& o) {
  if (o.teacher == nullptr && !o.whole_head) return kernels::HeadLoss(ctx, args);
  kernels::LinearBackwardOptions backward = o.backward;
  // No linear of a layer has this substream.
  backward.substream = ~o.backward.substream;
  return WholeHeadLoss(ctx, args, backward, o.whole_head ? 0 : kTeacherRows, o.teacher);
}

// Final norm, LM head, loss; the gradient at the last layer's output goes to layout.dhidden.
Result<kernels::HeadLossResult> TrainingPass::Impl::Head(const TokenBatch& batch,
                                                         const PassOptions& o,
                                                         const PassLayout& layout) {
  const ModelConfig& c = config();
  const int64_t n = batch.size();
  const ExitHead& head = o.head;
  const PartTimer timer(o.times, o.backward.mode == kernels::BackwardMode::kExact
                                     ? plan::KernelKind::kHeadLoss
                                     : plan::KernelKind::kHeadLossInt8);
  const float* gain = head.norm != nullptr ? head.norm : model.weights().final_norm;
  float* normed = layout.scratch.normed;
  kernels::RmsNormForward(ctx, n, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one,
                          layout.hidden, gain, normed, layout.final_rstd);
  if (o.observe) o.observe(-1, normed);

  kernels::HeadLossArgs args;
  args.tokens = n;
  args.hidden = normed;
  args.head = head.head != nullptr ? *head.head : model.weights().head;
  args.targets = batch.targets.data();
  args.softcap = c.logit_softcap;
  args.token_loss = o.token_loss;
  args.lora_r = head.lora_r;
  args.lora_scale = head.lora_scale;
  args.lora_a = head.lora_a;
  args.lora_b = head.lora_b;
  args.skip_below = o.head_skip_below;
  args.backward = o.backward.mode;
  if (!layout.backward) return Loss(args, o);

  float* dgain = head.norm != nullptr ? head.dnorm : o.gradients->final_norm;
  const bool down = layout.lowest < layout.end || dgain != nullptr ||
                    (layout.begin == 0 && o.gradients->embedding != nullptr);
  args.grad_scale = static_cast<float>(o.grad_scale);
  args.dhidden = down ? layout.scratch.dnormed : nullptr;
  args.dhead = head.head != nullptr ? head.dhead : o.gradients->head;
  args.dlora_a = head.dlora_a;
  args.dlora_b = head.dlora_b;
  EW_ASSIGN(const kernels::HeadLossResult result, Loss(args, o));
  if (down) {
    kernels::RmsNormBackward(ctx, n, c.hidden, c.norm_plus_one, layout.hidden, gain,
                             layout.final_rstd, layout.scratch.dnormed, layout.dhidden,
                             /*accumulate_dx=*/false, dgain);
  }
  return result;
}

TrainingPass::TrainingPass(ExecContext& ctx, const Model& model, int64_t max_tokens)
    : impl_(new Impl{ctx, model, std::clamp<int64_t>(max_tokens, 1, kMaxTokens), {}, {}, {}, {}}) {}
TrainingPass::~TrainingPass() = default;
TrainingPass::TrainingPass(TrainingPass&&) noexcept = default;

PassMemory TrainingPass::MemoryNeeded(const PassOptions& options) const {
  Carver activations, scratch;
  LayOut(impl_->config(), impl_->max_tokens, options, activations, scratch);
  return {activations.high(), scratch.high()};
}

int64_t TrainingPass::max_tokens() const { return impl_->max_tokens; }

PassMemory TrainingPass::memory() const {
  return {static_cast<int64_t>(impl_->activations.size()),
          static_cast<int64_t>(impl_->scratch.size())};
}

Result<kernels::HeadLossResult> TrainingPass::Run(const TokenBatch& batch, const PassOptions& o) {
  Impl& p = *impl_;
  PassPhases unused;
  PassPhases& phases = o.phases != nullptr ? *o.phases : unused;
  Stopwatch watch(o.phases != nullptr);
  EW_RETURN_IF_ERROR(p.CheckOptions(o));
  EW_RETURN_IF_ERROR(p.Check(batch));
  const PassMemory need = MemoryNeeded(o);
  EW_RETURN_IF_ERROR(Reserve(p.activations, need.activations, "activations"));
  EW_RETURN_IF_ERROR(Reserve(p.scratch, need.scratch, "scratch"));
  Carver activations(p.activations.data()), scratch(p.scratch.data());
  const PassLayout layout = LayOut(p.config(), p.max_tokens, o, activations, scratch);
  const int64_t n = batch.size(), width = p.config().hidden;
  const int64_t layers = static_cast<int64_t>(layout.layers.size());
  auto input_of = [&](int64_t layer) {
    return layer < layout.end ? layout.layers[static_cast<size_t>(layer - layout.lowest)].x
                              : layout.hidden;
  };

  // A head of the exit's own is always in memory.
  ExpectPass(p.model, {.embedding = o.start_hidden == nullptr,
                       .begin = layout.begin,
                       .end = layout.end,
                       .head = o.head.head == nullptr,
                       .lowest = layout.backward ? layout.lowest : -1,
                       .again = true});
  // Forward: in place below the lowest trained layer, from kept input to kept input above it.
  float* x = input_of(layout.lowest);
  if (o.start_hidden != nullptr) {
    std::copy_n(o.start_hidden, n * width, x);
  } else {
    EW_RETURN_IF_ERROR(EmbedTokens(p.ctx, p.model, batch.ids, x));
  }
  if (o.observe) o.observe(layout.begin, x);
  for (int64_t layer = layout.begin; layer < layout.end; ++layer) {
    BlockActivations acts = layout.shared;
    float* y = x;
    if (layer >= layout.lowest) {
      const PassLayout::Layer& kept = layout.layers[static_cast<size_t>(layer - layout.lowest)];
      if (kept.kept) acts = kept.acts;
      y = input_of(layer + 1);
    }
    if (acts.x_mid == nullptr) acts.x_mid = x;
    EW_ASSIGN(const HeldWeights held, HeldWeights::Layer(p.model, layer));
    BlockForward(p.ctx, p.BlockAt(layer, o), p.Rows(batch, layer), x, y, acts, layout.scratch);
    x = y;
    if (o.observe) o.observe(layer + 1, x);
  }

  watch.AddTo(&phases.forward);
  kernels::HeadLossResult result;
  if (o.head.head != nullptr) {
    EW_ASSIGN(result, p.Head(batch, o, layout));
  } else {
    EW_ASSIGN(const HeldWeights held, HeldWeights::Head(p.model));
    EW_ASSIGN(result, p.Head(batch, o, layout));
  }
  watch.AddTo(&phases.head);
  if (!layout.backward) return result;

  // Backward, down to the lowest layer with anything to train.
  const bool to_embedding = layout.begin == 0 && o.gradients->embedding != nullptr;
  for (int64_t i = layers - 1; i >= 0; --i) {
    const PassLayout::Layer& kept = layout.layers[static_cast<size_t>(i)];
    const int64_t layer = layout.lowest + i;
    const Block block = p.BlockAt(layer, o);
    const BlockRows rows = p.Rows(batch, layer);
    const BlockActivations& acts = kept.kept ? kept.acts : layout.shared;
    EW_ASSIGN(const HeldWeights held, HeldWeights::Layer(p.model, layer));
    if (!kept.kept) {
      BlockForward(p.ctx, block, rows, kept.x, /*y=*/nullptr, acts, layout.scratch);
    }
    BlockBackward(p.ctx, block, rows, kept.x, acts, layout.scratch,
                  o.gradients->layers[static_cast<size_t>(layer)], i > 0 || to_embedding,
                  layout.dhidden);
  }
  if (to_embedding) {
    kernels::EmbeddingBackward(p.ctx, n, batch.ids.data(), p.config().vocab, width,
                               p.config().embed_scale, layout.dhidden, o.gradients->embedding);
  }
  watch.AddTo(&phases.backward);
  return result;
}

Status TrainingPass::Forward(const TokenBatch& batch, LayerRange range, const LoraAdapter* lora,
                             float* hidden, int activation_bits) {
  return impl_->RunInPlace(batch, range, lora, activation_bits, nullptr, nullptr, hidden);
}

Status TrainingPass::ForwardLayer(const TokenBatch& batch, int64_t layer,
                                  const LayerWeights* weights, LinearObserver* observer,
                                  float* hidden) {
  return impl_->RunInPlace(batch, {layer, layer + 1}, nullptr, 0, weights, observer, hidden);
}

// Layers without saved state; `weights` (of every layer in the range) instead of the model's.
Status TrainingPass::Impl::RunInPlace(const TokenBatch& batch, LayerRange range,
                                      const LoraAdapter* lora, int activation_bits,
                                      const LayerWeights* weights, LinearObserver* observer,
                                      float* hidden) {
  PassOptions options;
  options.begin = range.begin;
  options.end = range.end;
  options.start_hidden = hidden;
  options.lora = lora;
  options.activation_bits = activation_bits;
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
    const Block block{own.config,         own.layer, weights != nullptr ? *weights : own.weights,
                      own.rope,           own.lora,  own.dropout,
                      observer,           {},        nullptr,
                      own.activation_bits};
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
  EW_ASSIGN(const HeldWeights held, HeldWeights::Head(p.model));
  ComputeLogits(p.ctx, p.model, rows, hidden, normed, xa, logits, head);
  return Status::Ok();
}

void ComputeLogits(ExecContext& ctx, const Model& model, int64_t rows, const float* hidden,
                   float* normed, float* xa, float* logits, const ExitHead& head) {
  const ModelConfig& c = model.config();
  kernels::RmsNormForward(ctx, rows, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one,
                          hidden, head.norm != nullptr ? head.norm : model.weights().final_norm,
                          normed, nullptr);
  const WeightRef& w = head.head != nullptr ? *head.head : model.weights().head;
  kernels::LinearForward(ctx, rows, normed, c.hidden, w, nullptr, logits, c.vocab);
  if (head.lora_r > 0) {
    kernels::LoraForward(ctx, rows, c.hidden, c.vocab, head.lora_r, head.lora_scale, normed,
                         c.hidden, head.lora_a, head.lora_b, xa, logits, c.vocab);
  }
  if (c.logit_softcap <= 0) return;
  const float cap = c.logit_softcap;
  ctx.ParallelFor(rows * c.vocab, 1 << 14, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
  });
}

}  // namespace edgewise::model
