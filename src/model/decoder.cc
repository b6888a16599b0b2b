#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <vector>

#include "kernels/elementwise.h"
#include "model/block.h"
#include "model/held_weights.h"
#include "model/pass_layout.h"
#include "model/training_pass.h"

namespace edgewise::model {

struct LayerStack::Impl {
  ExecContext& ctx;
  const Model& model;
  LayerRange range;
  const LoraAdapter* lora;
  int64_t lora_begin;
  int activation_bits;
  bool exact_forward;
  int64_t max_rows;
  RopeTables rope;
  AlignedBuffer storage;
  BlockActivations acts;
  BlockScratch scratch;
  float* cache_scratch = nullptr;  // [2, max_context, kv_dim], caches that are not fp32 only
  std::vector<int32_t> positions, first_key;

  // Points everything into `carver`.
  void Carve(Carver& carver, int64_t max_context, bool converts) {
    BlockNeeds needs;
    needs.rows = needs.mlp_rows = max_rows;
    needs.own_x_mid = false;
    needs.lora = lora;
    needs.rounds = activation_bits > 0;
    acts = CarveSharedActivations(carver, model.config(), needs);
    scratch.normed = carver.Floats(max_rows * model.config().hidden);
    scratch.ffn = acts.gate;
    if (needs.rounds)
      scratch.adapter.rounded = carver.Floats(max_rows * WidestInput(model.config()));
    if (converts) cache_scratch = carver.Floats(2 * max_context * model.config().kv_dim());
  }
};

LayerStack::LayerStack(LayerStack&&) noexcept = default;
LayerStack::~LayerStack() = default;

Result<LayerStack> LayerStack::Create(ExecContext& ctx, const Model& model, LayerRange range,
                                      const LayerStackOptions& options) {
  const ModelConfig& c = model.config();
  if (range.begin < 0 || range.begin > range.end || range.end > c.num_layers()) {
    return InvalidArgument(
        fmt::format("layers [{}, {}) of a model with {}", range.begin, range.end, c.num_layers()));
  }
  if (options.max_rows < 1 || options.max_context < 1 || options.max_rows > (1 << 24) ||
      options.max_context > (int64_t{1} << 31) - 1) {
    return InvalidArgument(
        fmt::format("{} rows at a time in a context of {}", options.max_rows, options.max_context));
  }
  if (options.lora != nullptr && options.lora->num_layers() != c.num_layers()) {
    return InvalidArgument(fmt::format("the adapter is for {} layers, the model has {}",
                                       options.lora->num_layers(), c.num_layers()));
  }
  try {
    LayerStack stack(std::make_unique<Impl>(Impl{ctx,
                                                 model,
                                                 range,
                                                 options.lora,
                                                 options.lora_begin,
                                                 options.activation_bits,
                                                 options.exact_forward,
                                                 options.max_rows,
                                                 {},
                                                 {},
                                                 {},
                                                 {},
                                                 nullptr,
                                                 {},
                                                 {}}));
    Impl& s = *stack.impl_;
    const bool converts = options.kv_form != KvForm::kF32;
    Carver plan;
    s.Carve(plan, options.max_context, converts);
    s.storage = AlignedBuffer(static_cast<size_t>(plan.used()));
    Carver carver(s.storage.data());
    s.Carve(carver, options.max_context, converts);
    s.rope.Ensure(c, options.max_context);
    s.positions.resize(static_cast<size_t>(options.max_rows));
    s.first_key.resize(static_cast<size_t>(options.max_rows));
    return stack;
  } catch (const std::bad_alloc&) {
    return OutOfMemory(fmt::format(
        "there is no memory for {} rows at a time in a context of {}: ask for a shorter context",
        options.max_rows, options.max_context));
  }
}

LayerStack::LayerStack(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

LayerRange LayerStack::range() const { return impl_->range; }
int64_t LayerStack::scratch_bytes() const {
  return static_cast<int64_t>(impl_->storage.size()) + impl_->rope.bytes();
}

Status LayerStack::Forward(KvCache& cache, int64_t rows, float* hidden) {
  Impl& s = *impl_;
  const ModelConfig& c = s.model.config();
  const int64_t at = cache.length();
  if (rows < 1 || rows > s.max_rows) {
    return InvalidArgument(fmt::format("{} rows; planned for 1 .. {}", rows, s.max_rows));
  }
  if (at + rows > cache.capacity() || at + rows > s.rope.positions()) {
    return InvalidArgument(fmt::format("the context is full: {} of {} positions are taken", at,
                                       std::min(cache.capacity(), s.rope.positions())));
  }
  const bool converts = cache.form() != KvForm::kF32;
  if (cache.range().begin > s.range.begin || cache.range().end < s.range.end ||
      (converts && s.cache_scratch == nullptr)) {
    return InvalidArgument("the KV cache does not belong to these layers");
  }
  for (int64_t t = 0; t < rows; ++t) {
    s.positions[static_cast<size_t>(t)] = static_cast<int32_t>(at + t);
  }
  BlockActivations acts = s.acts;
  acts.x_mid = hidden;
  for (int64_t layer = s.range.begin; layer < s.range.end; ++layer) {
    const LayerConfig& description = c.layers[static_cast<size_t>(layer)];
    // Only the part of the cache that the first row's window reaches is looked at.
    const int64_t window = description.window;
    const int64_t from = window > 0 ? std::max<int64_t>(0, at - window + 1) : 0;
    for (int64_t t = 0; t < rows; ++t) {
      const int64_t first = window > 0 ? std::max<int64_t>(0, at + t - window + 1) : 0;
      s.first_key[static_cast<size_t>(t)] = static_cast<int32_t>(first - from);
    }
    Block block{c, layer, s.model.weights().layers[static_cast<size_t>(layer)],
                s.rope[description.rope], layer >= s.lora_begin ? s.lora : nullptr};
    block.activation_bits = s.activation_bits;
    block.exact_forward = s.exact_forward;
    EW_ASSIGN(const HeldWeights held, HeldWeights::Layer(s.model, layer));
    const BlockCache block_cache{&cache, from, s.cache_scratch};
    BlockForward(s.ctx, block, {rows, s.positions.data(), s.first_key.data()}, hidden, hidden, acts,
                 s.scratch, &block_cache);
  }
  return Status::Ok();
}

Result<std::unique_ptr<Decoder>> Decoder::Create(ExecContext& ctx, const Model& model,
                                                 DecoderOptions options, const LoraAdapter* lora) {
  const ModelConfig& c = model.config();
  const LayerRange all{0, c.num_layers()};
  LayerStackOptions stack_options;
  stack_options.max_context = options.max_context > 0 ? options.max_context : c.max_positions;
  stack_options.max_rows = std::clamp<int64_t>(options.prefill_chunk, 1, stack_options.max_context);
  stack_options.kv_form = options.kv_form;
  stack_options.lora = lora;
  stack_options.activation_bits = options.activation_bits;
  EW_ASSIGN(KvCache cache, KvCache::Create(c, all, stack_options.max_context, options.kv_form));
  EW_ASSIGN(LayerStack stack, LayerStack::Create(ctx, model, all, stack_options));
  try {
    return std::unique_ptr<Decoder>(
        new Decoder(ctx, model, std::move(cache), std::move(stack), stack_options.max_rows));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("there is no memory for the decoder's buffers");
  }
}

Decoder::Decoder(ExecContext& ctx, const Model& model, KvCache cache, LayerStack stack,
                 int64_t chunk)
    : ctx_(ctx),
      model_(model),
      cache_(std::move(cache)),
      stack_(std::move(stack)),
      chunk_(chunk),
      hidden_(chunk * model.config().hidden),
      normed_(model.config().hidden),
      logits_(model.config().vocab) {}

int64_t Decoder::scratch_bytes() const {
  return stack_.scratch_bytes() + (hidden_.size() + normed_.size() + logits_.size()) * 4;
}

Status Decoder::Append(std::span<const int32_t> tokens) {
  const auto rows = static_cast<int64_t>(tokens.size());
  ExpectPass(model_, {.embedding = true, .end = model_.config().num_layers(), .head = true});
  EW_RETURN_IF_ERROR(EmbedTokens(ctx_, model_, tokens, hidden_.data()));
  EW_RETURN_IF_ERROR(stack_.Forward(cache_, rows, hidden_.data()));
  cache_.Advance(rows);
  return Status::Ok();
}

Result<std::span<const float>> Decoder::Prefill(std::span<const int32_t> tokens) {
  const ModelConfig& c = model_.config();
  const auto count = static_cast<int64_t>(tokens.size());
  if (count == 0) return InvalidArgument("there are no tokens to read");
  for (int32_t id : tokens) {
    if (id < 0 || id >= c.vocab) {
      return BadInput(
          fmt::format("token id {} is not in the model's vocabulary of {}", id, c.vocab));
    }
  }
  if (length() + count > max_context()) {
    return InvalidArgument(fmt::format("{} tokens do not fit: {} of the context's {} are taken",
                                       count, length(), max_context()));
  }
  int64_t rows = 0;
  for (int64_t at = 0; at < count; at += rows) {
    rows = std::min(chunk_, count - at);
    EW_RETURN_IF_ERROR(Append(tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(rows))));
  }
  return LastLogits(rows);
}

Result<std::span<const float>> Decoder::Step(int32_t token) { return Prefill({&token, 1}); }

Result<std::span<const float>> Decoder::LastLogits(int64_t rows) {
  const int64_t width = model_.config().hidden;
  EW_RETURN_IF_ERROR(ComputeLogits(ctx_, model_, 1, hidden_.data() + (rows - 1) * width,
                                   normed_.data(), nullptr, logits_.data()));
  return std::span<const float>(logits_.span());
}

}  // namespace edgewise::model
