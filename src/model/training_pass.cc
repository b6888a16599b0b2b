#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <optional>

#include "kernels/elementwise.h"
#include "model/held_weights.h"
#include "model/training_pass_impl.h"

namespace edgewise::model {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 30;
constexpr int64_t kTeacherRows = 32;  // whose logits, and a teacher's, are held at a time

// Of WholeHeadLoss.
int64_t HeadChunk(const PassOptions& o) { return o.whole_head ? 0 : kTeacherRows; }

}  // namespace

bool InBlocks(const Model& model, const PassOptions& o) {
  return model.stream() != nullptr && o.head.head == nullptr && o.teacher == nullptr &&
         !o.whole_head;
}

int64_t SlotBytes(const PassLayout& layout) {
  return layout.spilled > 0 ? ActivationSpill::SlotBytes(layout.piece_bytes) : 0;
}

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

Status TrainingPass::Impl::Check(const TokenBatch& batch, size_t row) {
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
  if (first_keys.size() <= row) first_keys.resize(row + 1);
  for (const LayerConfig& layer : config().layers) first_keys[row][layer.window].clear();
  for (auto& [window, keys] : first_keys[row]) {
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
  if (o.layers_in_memory >= 0 && o.gradients != nullptr && o.spill == nullptr) {
    return InvalidArgument("there is no place for the layers that are not in memory");
  }
  if (o.mlp_rows < 0 || o.mlp_rows % kernels::kTokenBlock != 0) {
    return InvalidArgument(fmt::format("{} rows of the MLP at a time are no multiple of {}",
                                       o.mlp_rows, kernels::kTokenBlock));
  }
  if (!(o.dropout >= 0 && o.dropout < 1)) {
    return InvalidArgument(fmt::format("dropout {} is not in [0, 1)", o.dropout));
  }
  return Status::Ok();
}

BlockRows TrainingPass::Impl::Rows(const TokenBatch& batch, int64_t layer, size_t row) const {
  const int64_t window = config().layers[static_cast<size_t>(layer)].window;
  return {batch.size(), batch.positions.data(), first_keys[row].at(window).data()};
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
  block.exact_forward = o.exact_forward;
  return block;
}

Result<kernels::HeadLossResult> TrainingPass::Impl::Loss(const kernels::HeadLossArgs& args,
                                                         const PassOptions& o) {
  if (o.teacher == nullptr && !o.whole_head) return kernels::HeadLoss(ctx, args);
  kernels::LinearBackwardOptions backward = o.backward;
  // No linear of a layer has this substream.
  backward.substream = ~o.backward.substream;
  return WholeHeadLoss(ctx, args, backward, HeadChunk(o), o.teacher);
}

int64_t TrainingPass::Impl::HeadBytes(const PassOptions& o, const PassLayout& layout,
                                      int64_t tokens) const {
  if (o.teacher == nullptr && !o.whole_head) return 0;
  kernels::HeadLossArgs args;
  args.head = o.head.head != nullptr ? *o.head.head : model.weights().head;
  args.lora_r = o.head.lora_r;
  args.dlora_a = o.head.dlora_a;
  args.dlora_b = o.head.dlora_b;
  args.grad_scale = layout.backward ? 1.0f : 0.0f;
  return WholeHeadBytes(args, tokens, HeadChunk(o), o.teacher);
}

kernels::HeadLossArgs TrainingPass::Impl::HeadArgs(const TokenBatch& batch, const PassOptions& o,
                                                   const PassLayout& layout) const {
  const ExitHead& head = o.head;
  kernels::HeadLossArgs args;
  args.tokens = batch.size();
  args.hidden = layout.scratch.normed;
  args.head = head.head != nullptr ? *head.head : model.weights().head;
  args.targets = batch.targets.data();
  args.softcap = config().logit_softcap;
  args.token_loss = o.token_loss;
  args.lora_r = head.lora_r;
  args.lora_scale = head.lora_scale;
  args.lora_a = head.lora_a;
  args.lora_b = head.lora_b;
  args.skip_below = o.head_skip_below;
  args.backward = o.backward.mode;
  if (!layout.backward) return args;
  const float* dgain = head.norm != nullptr ? head.dnorm : o.gradients->final_norm;
  const bool down = layout.lowest < layout.end || dgain != nullptr ||
                    (layout.begin == 0 && o.gradients->embedding != nullptr);
  args.grad_scale = static_cast<float>(o.grad_scale);
  args.dhidden = down ? layout.scratch.dnormed : nullptr;
  args.dhead = head.head != nullptr ? head.dhead : o.gradients->head;
  args.dlora_a = head.dlora_a;
  args.dlora_b = head.dlora_b;
  return args;
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

  kernels::HeadLossArgs args = HeadArgs(batch, o, layout);
  std::optional<HeldHeadBlocks> blocks;
  if (InBlocks(model, o)) {
    blocks.emplace(*model.stream(), c.vocab);
    args.source = &*blocks;
  }
  EW_ASSIGN(const kernels::HeadLossResult result, Loss(args, o));
  if (blocks) EW_RETURN_IF_ERROR(blocks->status());
  if (args.dhidden != nullptr) {
    kernels::RmsNormBackward(ctx, n, c.hidden, c.norm_plus_one, layout.hidden, gain,
                             layout.final_rstd, layout.scratch.dnormed, layout.dhidden,
                             /*accumulate_dx=*/false,
                             head.norm != nullptr ? head.dnorm : o.gradients->final_norm);
  }
  return result;
}

TrainingPass::TrainingPass(ExecContext& ctx, const Model& model, int64_t max_tokens)
    : impl_(new Impl{ctx, model, std::clamp<int64_t>(max_tokens, 1, kMaxTokens), {}, {}, {}, {}}) {}

void TrainingPass::SetMlpRows(int64_t mlp_rows) { impl_->mlp_rows = mlp_rows; }

void TrainingPass::SetMaxTokens(int64_t max_tokens) {
  Release();
  impl_->max_tokens = std::clamp<int64_t>(max_tokens, 1, kMaxTokens);
}

TrainingPass::~TrainingPass() = default;
TrainingPass::TrainingPass(TrainingPass&&) noexcept = default;

PassMemory TrainingPass::MemoryNeeded(const PassOptions& options) const {
  return MemoryNeeded(options, impl_->max_tokens);
}

PassMemory TrainingPass::MemoryNeeded(const PassOptions& options, int64_t max_tokens) const {
  Carver activations, scratch;
  const PassLayout layout = LayOut(impl_->config(), max_tokens, options, activations, scratch);
  return {activations.high(),
          scratch.high() + SlotBytes(layout) + impl_->HeadBytes(options, layout, max_tokens)};
}

int64_t TrainingPass::max_tokens() const { return impl_->max_tokens; }

PassMemory TrainingPass::memory() const {
  return {static_cast<int64_t>(impl_->activations.size()),
          static_cast<int64_t>(impl_->scratch.size() + impl_->slots.size())};
}

void TrainingPass::Release() {
  impl_->activations.Reset();
  impl_->scratch.Reset();
  impl_->slots.Reset();
}

Result<kernels::HeadLossResult> TrainingPass::Run(const TokenBatch& batch, const PassOptions& o) {
  const GroupRow row{&batch, o.start_hidden, o.dropout_key, o.backward.substream};
  EW_ASSIGN(const std::vector<kernels::HeadLossResult> results, impl_->RunRows({&row, 1}, o));
  return results[0];
}

Result<std::vector<kernels::HeadLossResult>> TrainingPass::RunGroup(std::span<const GroupRow> rows,
                                                                    const PassOptions& o) {
  if (o.gradients == nullptr || o.gradients->embedding != nullptr || rows.empty()) {
    return InvalidArgument("a group of micro-batches has gradients, but not of the embedding");
  }
  if (rows.size() > 1 && (o.teacher != nullptr || o.token_loss != nullptr)) {
    return InvalidArgument("a teacher and losses by token are of one micro-batch, not of a group");
  }
  return impl_->RunRows(rows, o);
}

}  // namespace edgewise::model
