#include "model/pass_layout.h"

#include <algorithm>

namespace edgewise::model {
namespace {

void CarveAttention(Carver& carver, const ModelConfig& c, const BlockNeeds& needs,
                    BlockActivations* a) {
  const int64_t n = needs.rows;
  const auto rstd = [&](int64_t per_row) {
    return needs.backward ? carver.Floats(n * per_row) : nullptr;
  };
  a->attn_rstd = rstd(1);
  if (c.qk_norm) {
    a->q_raw = carver.Floats(n * c.q_dim());
    a->k_raw = carver.Floats(n * c.kv_dim());
    a->q_rstd = rstd(c.heads);
    a->k_rstd = rstd(c.kv_heads);
  }
  a->q = carver.Floats(n * c.q_dim());
  a->k = carver.Floats(n * c.kv_dim());
  a->v = carver.Floats(n * c.kv_dim());
  a->attn = carver.Floats(n * c.q_dim());
  a->lse = rstd(c.heads);
  if (c.sandwich_norms) {
    a->attn_out = carver.Floats(n * c.hidden);
    a->attn_post_rstd = rstd(1);
  }
  if (needs.rounds) {
    a->k_unrounded = carver.Floats(n * c.kv_dim());
    a->v_unrounded = carver.Floats(n * c.kv_dim());
  }
  if (needs.own_x_mid) a->x_mid = carver.Floats(n * c.hidden);
}

void CarveMlp(Carver& carver, const ModelConfig& c, const BlockNeeds& needs, BlockActivations* a) {
  const int64_t n = needs.mlp_rows;
  if (needs.backward) a->mlp_rstd = carver.Floats(n);
  if (c.sandwich_norms) {
    a->mlp_out = carver.Floats(n * c.hidden);
    if (needs.backward) a->mlp_post_rstd = carver.Floats(n);
  }
  a->gate = carver.Floats(n * c.ffn);
  a->up = carver.Floats(n * c.ffn);
}

// Numbers in the widest input of a linear.
int64_t WidestInputs(const ModelConfig& c, const BlockNeeds& needs) {
  return std::max(needs.rows * std::max(c.hidden, c.q_dim()), needs.mlp_rows * c.ffn);
}

// Rows of the linear's input that a block's buffers hold; 0: none are wanted.
int64_t RowsOf(const BlockNeeds& needs, LinearKind kind) {
  const bool mlp =
      kind == LinearKind::kGate || kind == LinearKind::kUp || kind == LinearKind::kDown;
  return mlp ? needs.mlp_rows : needs.attention ? needs.rows : 0;
}

BlockActivations CarveBlock(Carver& carver, const ModelConfig& c, const BlockNeeds& needs) {
  BlockActivations a;
  if (needs.attention) CarveAttention(carver, c, needs, &a);
  if (needs.mlp_rows > 0) CarveMlp(carver, c, needs, &a);
  return a;
}

plan::Recompute RecomputeOf(const PassOptions& options, int64_t layer) {
  return static_cast<size_t>(layer) < options.recompute.size()
             ? options.recompute[static_cast<size_t>(layer)]
             : plan::Recompute::kNone;
}

BlockNeeds NeedsOf(const PassOptions& options, int64_t rows) {
  BlockNeeds needs;
  needs.rows = needs.mlp_rows = rows;
  needs.lora = options.lora;
  needs.dropout = options.dropout > 0;
  needs.rounds = options.activation_bits > 0;
  needs.backward = true;
  return needs;
}

}  // namespace

int64_t WidestInput(const ModelConfig& c) { return std::max({c.hidden, c.q_dim(), c.ffn}); }

int64_t MlpRows(const PassOptions& options, int64_t max_tokens) {
  // Who looks at linears sees all rows at once.
  if (options.linears != nullptr) return max_tokens;
  return options.mlp_rows > 0 ? std::min(options.mlp_rows, max_tokens) : max_tokens;
}

BlockActivations PassLayout::ActivationsOf(const Layer& layer) const {
  if (layer.recompute == plan::Recompute::kLayer) return shared;
  BlockActivations a = layer.acts;
  if (layer.recompute == plan::Recompute::kNone) return a;
  a.mlp_rstd = shared.mlp_rstd;
  a.mlp_out = shared.mlp_out;
  a.mlp_post_rstd = shared.mlp_post_rstd;
  a.gate = shared.gate;
  a.up = shared.up;
  for (LinearKind kind : {LinearKind::kGate, LinearKind::kUp, LinearKind::kDown}) {
    a.xa[static_cast<size_t>(kind)] = shared.xa[static_cast<size_t>(kind)];
  }
  return a;
}

BlockActivations CarveActivations(Carver& carver, const ModelConfig& c, int64_t layer,
                                  const BlockNeeds& needs) {
  BlockActivations a = CarveBlock(carver, c, needs);
  if (needs.lora == nullptr) return a;
  for (LinearKind kind : kAllLinears) {
    const LoraSlot* slot = needs.lora->slot(layer, kind);
    const int64_t rows = RowsOf(needs, kind);
    if (slot == nullptr || rows == 0) continue;
    a.xa[static_cast<size_t>(kind)] = carver.Floats(rows * slot->r);
  }
  return a;
}

BlockActivations CarveSharedActivations(Carver& carver, const ModelConfig& c,
                                        const BlockNeeds& needs) {
  BlockActivations a = CarveBlock(carver, c, needs);
  if (needs.lora == nullptr) return a;
  for (LinearKind kind : kAllLinears) {
    const int64_t rows = RowsOf(needs, kind);
    if (rows > 0) a.xa[static_cast<size_t>(kind)] = carver.Floats(rows * needs.lora->max_rank());
  }
  return a;
}

BlockScratch CarveScratch(Carver& carver, const ModelConfig& c, const BlockNeeds& needs) {
  const int64_t n = needs.rows;
  const int64_t inputs = WidestInputs(c, needs);
  BlockScratch s;
  s.normed = carver.Floats(n * c.hidden);
  if (needs.rounds) s.adapter.rounded = carver.Floats(inputs);
  if (needs.lora != nullptr && needs.dropout) s.adapter.dropped = carver.Floats(inputs);
  if (!needs.backward) return s;
  s.dnormed = carver.Floats(n * c.hidden);
  if (c.sandwich_norms) s.dproj = carver.Floats(n * c.hidden);
  if (needs.lora != nullptr) {
    s.adapter.dxa = carver.Floats(n * needs.lora->max_rank());
    if (needs.dropout) s.adapter.ddropped = carver.Floats(inputs);
  }
  // The MLP half of a backward pass is over when the attention half begins.
  const int64_t mark = carver.used();
  s.ffn = carver.Floats(needs.mlp_rows * c.ffn);
  s.dffn = carver.Floats(needs.mlp_rows * c.ffn);
  carver.Rewind(mark);
  s.dattn = carver.Floats(n * c.q_dim());
  s.dq = carver.Floats(n * c.q_dim());
  s.dk = carver.Floats(n * c.kv_dim());
  s.dv = carver.Floats(n * c.kv_dim());
  carver.Rewind(mark);
  return s;
}

PassLayout::Layer CarveLayer(Carver& carver, const ModelConfig& c, int64_t layer, int64_t rows,
                             const PassOptions& options) {
  PassLayout::Layer l;
  l.x = carver.Floats(rows * c.hidden);
  l.recompute = RecomputeOf(options, layer);
  if (l.recompute == plan::Recompute::kLayer) return l;
  BlockNeeds needs = NeedsOf(options, rows);
  if (l.recompute == plan::Recompute::kMlp) needs.mlp_rows = 0;
  l.acts = CarveActivations(carver, c, layer, needs);
  return l;
}

PassLayout LayOut(const ModelConfig& c, int64_t max_tokens, const PassOptions& options,
                  Carver& activations, Carver& scratch) {
  PassLayout out;
  out.begin = options.begin;
  out.end = options.end < 0 ? c.num_layers() : options.end;
  out.backward = options.gradients != nullptr;
  out.lowest =
      out.backward ? std::clamp(options.gradients->first_layer(), out.begin, out.end) : out.end;

  bool any_mlp_kept = false, any_mlp = false, any_layer = false;  // the latter computed again
  if (options.layers_in_memory >= 0) {
    out.spilled = std::max<int64_t>(0, out.end - out.lowest - options.layers_in_memory);
  }
  for (int64_t layer = out.lowest; layer < out.end; ++layer) {
    PassLayout::Layer l;
    if (layer - out.lowest < out.spilled) {
      Carver piece;
      l.recompute = CarveLayer(piece, c, layer, max_tokens, options).recompute;
      l.spilled = true;
      out.piece_bytes = std::max(out.piece_bytes, piece.used());
    } else {
      l = CarveLayer(activations, c, layer, max_tokens, options);
    }
    any_mlp_kept = any_mlp_kept || l.recompute == plan::Recompute::kNone;
    any_mlp = any_mlp || l.recompute != plan::Recompute::kNone;
    any_layer = any_layer || l.recompute == plan::Recompute::kLayer;
    out.layers.push_back(l);
  }
  out.hidden = activations.Floats(max_tokens * c.hidden);
  // Of a micro-batch, as what is kept: others may pass between its head and its layers.
  if (out.backward) out.dhidden = activations.Floats(max_tokens * c.hidden);

  const bool trains_layers = out.lowest < out.end;
  const bool below = out.begin < out.lowest;
  out.final_rstd = scratch.Floats(max_tokens);
  out.mlp_rows = MlpRows(options, max_tokens);
  BlockNeeds needs = NeedsOf(options, max_tokens);
  if (any_mlp || below) {
    needs.attention = any_layer || below;
    needs.mlp_rows = out.mlp_rows;
    needs.backward = any_mlp;
    needs.own_x_mid = any_layer;
    out.shared = CarveSharedActivations(scratch, c, needs);
  }
  needs.backward = trains_layers;
  needs.mlp_rows = any_mlp_kept ? max_tokens : out.mlp_rows;
  out.scratch = CarveScratch(scratch, c, needs);
  if (!trains_layers) out.scratch.ffn = out.shared.gate;
  if (out.backward && !trains_layers) out.scratch.dnormed = scratch.Floats(max_tokens * c.hidden);
  return out;
}

}  // namespace edgewise::model
