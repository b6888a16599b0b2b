// Forward and backward of a group of micro-batches, stage by stage.
#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "kernels/elementwise.h"
#include "model/held_weights.h"
#include "model/training_pass_impl.h"

namespace edgewise::model {
namespace {

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

// A pass's use of a spill, which ends with it. Pieces are numbered by layer, then by row.
class SpilledLayers {
 public:
  static Result<SpilledLayers> Begin(const PassOptions& o, const PassLayout& shape, int64_t rows,
                                     std::byte* slots) {
    SpilledLayers s(shape.spilled > 0 ? o.spill : nullptr, rows);
    if (s.spill_ == nullptr) return s;
    std::vector<int32_t> uses;
    for (int64_t layer = shape.spilled - 1; layer >= 0; --layer) {
      for (int64_t r = 0; r < rows; ++r) uses.push_back(static_cast<int32_t>(layer * rows + r));
    }
    EW_RETURN_IF_ERROR(s.spill_->Begin(std::move(uses), shape.piece_bytes, slots));
    return s;
  }
  SpilledLayers(SpilledLayers&& o) noexcept
      : spill_(std::exchange(o.spill_, nullptr)), rows_(o.rows_) {}
  ~SpilledLayers() {
    if (spill_ != nullptr) spill_->End();
  }

  // Memory of a layer (from the lowest), and that the forward or the backward pass is through it.
  Result<std::byte*> Fill(int64_t layer, size_t row) { return spill_->Fill(Piece(layer, row)); }
  void Filled(int64_t layer, size_t row, int64_t bytes) {
    spill_->Filled(Piece(layer, row), bytes);
  }
  Result<std::byte*> Take(int64_t layer, size_t row) { return spill_->Take(Piece(layer, row)); }
  void Drop(int64_t layer, size_t row) { spill_->Drop(Piece(layer, row)); }

 private:
  SpilledLayers(ActivationSpill* spill, int64_t rows) : spill_(spill), rows_(rows) {}
  int64_t Piece(int64_t layer, size_t row) const {
    return layer * rows_ + static_cast<int64_t>(row);
  }
  ActivationSpill* spill_;
  int64_t rows_;
};

}  // namespace

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
  EW_RETURN_IF_ERROR(Reserve(slots, SlotBytes(shape), "slots for activations"));
  EW_ASSIGN(SpilledLayers spilled,
            SpilledLayers::Begin(common, shape, count, slots.as<std::byte>()));
  // A spilled layer copies it.
  const auto input_of = [](const PassLayout& layout, int64_t layer) {
    return layer < layout.end && layer - layout.lowest >= layout.spilled
               ? layout.layers[static_cast<size_t>(layer - layout.lowest)].x
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
      Block block = BlockAt(layer, row.o);
      block.mlp_rows = row.layout.mlp_rows;
      float* x = input_of(row.layout, std::max(layer, shape.lowest));
      float* y = x;
      const int64_t i = layer - shape.lowest;
      Carver piece;
      if (i >= 0) {
        PassLayout::Layer kept = row.layout.layers[static_cast<size_t>(i)];
        if (kept.spilled) {
          EW_ASSIGN(std::byte* const slot, spilled.Fill(i, r));
          piece = Carver(slot);
          kept = CarveLayer(piece, config(), layer, row.batch.size(), row.o);
          std::copy_n(x, row.batch.size() * width, kept.x);
          x = kept.x;
        }
        acts = row.layout.ActivationsOf(kept);
        if (kept.recompute == plan::Recompute::kNone) block.mlp_rows = 0;
        y = input_of(row.layout, layer + 1);
      }
      if (acts.x_mid == nullptr) acts.x_mid = x;
      BlockForward(ctx, block, Rows(row.batch, layer, r), x, y, acts, row.layout.scratch);
      if (piece.used() > 0) spilled.Filled(i, r, piece.used());
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
      PassLayout::Layer kept = row.layout.layers[static_cast<size_t>(i)];
      const bool on_disk = kept.spilled;
      if (on_disk) {
        EW_ASSIGN(std::byte* const slot, spilled.Take(i, r));
        Carver piece(slot);
        kept = CarveLayer(piece, config(), layer, row.batch.size(), row.o);
      }
      Block block = BlockAt(layer, row.o);
      if (kept.recompute != plan::Recompute::kNone) block.mlp_rows = row.layout.mlp_rows;
      const BlockRows at = Rows(row.batch, layer, r);
      const BlockActivations acts = row.layout.ActivationsOf(kept);
      if (kept.recompute == plan::Recompute::kLayer) {
        BlockForward(ctx, block, at, kept.x, /*y=*/nullptr, acts, row.layout.scratch);
      }
      BlockBackward(ctx, block, at, kept.x, acts, row.layout.scratch,
                    common.gradients->layers[static_cast<size_t>(layer)], i > 0 || to_embedding,
                    row.layout.dhidden);
      if (on_disk) spilled.Drop(i, r);
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
