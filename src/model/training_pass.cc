#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <optional>

#include "kernels/elementwise.h"
#include "model/held_weights.h"
#include "model/training_pass_impl.h"

namespace edgewise::model {
namespace {

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

// Whether the head is taken block by block: the fused loss does.
bool InBlocks(const Model& model, const PassOptions& o) {
  return model.stream() != nullptr && o.head.head == nullptr && o.teacher == nullptr &&
         !o.whole_head;
}

}  // namespace

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
  return WholeHeadLoss(ctx, args, backward, o.whole_head ? 0 : kTeacherRows, o.teacher);
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
    : impl_(new Impl{ctx, model, std::clamp<int64_t>(max_tokens, 1, kMaxTokens), {}, {}, {}}) {}
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

void TrainingPass::Release() {
  impl_->activations.Reset();
  impl_->scratch.Reset();
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

// Each stage for all rows before the next one. A tensor's gradient receives the rows' shares in
// their order, as it does when they run one after the other.
Result<std::vector<kernels::HeadLossResult>> TrainingPass::Impl::RunRows(
    std::span<const GroupRow> group, const PassOptions& common) {
  PassPhases unused;
  PassPhases& phases = common.phases != nullptr ? *common.phases : unused;
  Stopwatch watch(common.phases != nullptr);
  const auto waited = [&] {
    return model.stream() != nullptr ? model.stream()->stats().wait_seconds : 0.0;
  };
  phases.waited -= waited();
  struct Row {
    const TokenBatch& batch;
    PassOptions o;
    PassLayout layout;
  };
  std::vector<Row> rows;
  for (const GroupRow& g : group) {
    Row& row = rows.emplace_back(Row{*g.batch, common, {}});
    row.o.start_hidden = g.start_hidden;
    row.o.dropout_key = g.dropout_key;
    row.o.backward.substream = g.substream;
    EW_RETURN_IF_ERROR(CheckOptions(row.o));
    EW_RETURN_IF_ERROR(Check(row.batch, rows.size() - 1));
  }
  Carver count_activations, count_scratch;
  LayOut(config(), max_tokens, common, count_activations, count_scratch);
  const int64_t each = count_activations.high(), count = static_cast<int64_t>(rows.size());
  EW_RETURN_IF_ERROR(Reserve(activations, count * each, "activations"));
  EW_RETURN_IF_ERROR(Reserve(scratch, count_scratch.high(), "scratch"));
  for (int64_t i = 0; i < count; ++i) {
    Carver kept(activations.as<char>() + i * each), shared(scratch.data());
    Row& row = rows[static_cast<size_t>(i)];
    row.layout = LayOut(config(), max_tokens, row.o, kept, shared);
  }
  const PassLayout& shape = rows[0].layout;
  const int64_t width = config().hidden, layers = static_cast<int64_t>(shape.layers.size());
  const auto input_of = [](const PassLayout& layout, int64_t layer) {
    return layer < layout.end ? layout.layers[static_cast<size_t>(layer - layout.lowest)].x
                              : layout.hidden;
  };

  // A head of the exit's own is always in memory.
  const bool embeds = rows[0].o.start_hidden == nullptr;
  std::vector<int64_t> head_rows;
  if (InBlocks(model, common)) {
    HeldHeadBlocks blocks(*model.stream(), config().vocab);
    for (const Row& row : rows) {
      kernels::HeadLossArgs args = HeadArgs(row.batch, row.o, row.layout);
      args.source = &blocks;
      const std::vector<int64_t> order = kernels::HeadLossOrder(ctx, args);
      head_rows.insert(head_rows.end(), order.begin(), order.end());
    }
  }
  ExpectPass(model, {.embedding = embeds,
                     .begin = shape.begin,
                     .end = shape.end,
                     .head = common.head.head == nullptr,
                     .head_rows = std::move(head_rows),
                     .lowest = shape.backward ? shape.lowest : -1,
                     .again = true});
  for (Row& row : rows) {
    float* x = input_of(row.layout, shape.lowest);
    if (row.o.start_hidden != nullptr) {
      std::copy_n(row.o.start_hidden, row.batch.size() * width, x);
    } else {
      EW_RETURN_IF_ERROR(EmbedTokens(ctx, model, row.batch.ids, x));
    }
    if (row.o.observe) row.o.observe(shape.begin, x);
  }
  // Forward: in place below the lowest trained layer, from kept input to kept input above it.
  for (int64_t layer = shape.begin; layer < shape.end; ++layer) {
    EW_ASSIGN(const HeldWeights held, HeldWeights::Layer(model, layer));
    for (size_t r = 0; r < rows.size(); ++r) {
      const Row& row = rows[r];
      BlockActivations acts = row.layout.shared;
      float* x = input_of(row.layout, std::max(layer, shape.lowest));
      float* y = x;
      if (layer >= shape.lowest) {
        const auto& kept = row.layout.layers[static_cast<size_t>(layer - shape.lowest)];
        if (kept.kept) acts = kept.acts;
        y = input_of(row.layout, layer + 1);
      }
      if (acts.x_mid == nullptr) acts.x_mid = x;
      BlockForward(ctx, BlockAt(layer, row.o), Rows(row.batch, layer, r), x, y, acts,
                   row.layout.scratch);
      if (row.o.observe) row.o.observe(layer + 1, y);
    }
  }

  watch.AddTo(&phases.forward);
  std::vector<kernels::HeadLossResult> results;
  {
    std::optional<HeldWeights> held;
    if (common.head.head == nullptr && !InBlocks(model, common)) {
      EW_ASSIGN(HeldWeights taken, HeldWeights::Head(model));
      held.emplace(std::move(taken));
    }
    for (const Row& row : rows) {
      EW_ASSIGN(results.emplace_back(), Head(row.batch, row.o, row.layout));
    }
  }
  watch.AddTo(&phases.head);
  if (!shape.backward) {
    phases.waited += waited();
    return results;
  }

  // Backward, down to the lowest layer with anything to train.
  const bool to_embedding = shape.begin == 0 && common.gradients->embedding != nullptr;
  for (int64_t i = layers - 1; i >= 0; --i) {
    const int64_t layer = shape.lowest + i;
    EW_ASSIGN(const HeldWeights held, HeldWeights::Layer(model, layer));
    for (size_t r = 0; r < rows.size(); ++r) {
      const Row& row = rows[r];
      const PassLayout::Layer& kept = row.layout.layers[static_cast<size_t>(i)];
      const Block block = BlockAt(layer, row.o);
      const BlockRows at = Rows(row.batch, layer, r);
      const BlockActivations& acts = kept.kept ? kept.acts : row.layout.shared;
      if (!kept.kept) {
        BlockForward(ctx, block, at, kept.x, /*y=*/nullptr, acts, row.layout.scratch);
      }
      BlockBackward(ctx, block, at, kept.x, acts, row.layout.scratch,
                    common.gradients->layers[static_cast<size_t>(layer)], i > 0 || to_embedding,
                    row.layout.dhidden);
    }
  }
  if (to_embedding) {
    kernels::EmbeddingBackward(ctx, rows[0].batch.size(), rows[0].batch.ids.data(), config().vocab,
                               width, config().embed_scale, rows[0].layout.dhidden,
                               common.gradients->embedding);
  }
  watch.AddTo(&phases.backward);
  phases.waited += waited();
  return results;
}

}  // namespace edgewise::model
