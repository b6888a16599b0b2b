#include "model/pass_layout.h"

#include <algorithm>

namespace edgewise::model {
namespace {

BlockActivations CarveBlock(Carver& carver, const ModelConfig& c, const BlockNeeds& needs) {
  const int64_t n = needs.rows;
  BlockActivations a;
  auto rstd = [&](int64_t per_row) {
    return needs.backward ? carver.Floats(n * per_row) : nullptr;
  };
  a.attn_rstd = rstd(1);
  a.mlp_rstd = rstd(1);
  if (c.qk_norm) {
    a.q_raw = carver.Floats(n * c.q_dim());
    a.k_raw = carver.Floats(n * c.kv_dim());
    a.q_rstd = rstd(c.heads);
    a.k_rstd = rstd(c.kv_heads);
  }
  a.q = carver.Floats(n * c.q_dim());
  a.k = carver.Floats(n * c.kv_dim());
  a.v = carver.Floats(n * c.kv_dim());
  a.attn = carver.Floats(n * c.q_dim());
  a.lse = rstd(c.heads);
  if (c.sandwich_norms) {
    a.attn_out = carver.Floats(n * c.hidden);
    a.attn_post_rstd = rstd(1);
    a.mlp_out = carver.Floats(n * c.hidden);
    a.mlp_post_rstd = rstd(1);
  }
  if (needs.rounds) {
    a.k_unrounded = carver.Floats(n * c.kv_dim());
    a.v_unrounded = carver.Floats(n * c.kv_dim());
  }
  if (needs.own_x_mid) a.x_mid = carver.Floats(n * c.hidden);
  a.gate = carver.Floats(n * c.ffn);
  a.up = carver.Floats(n * c.ffn);
  return a;
}

bool Recomputed(const PassOptions& options, int64_t layer) {
  return static_cast<size_t>(layer) < options.recompute.size() &&
         options.recompute[static_cast<size_t>(layer)] != 0;
}

BlockNeeds NeedsOf(const PassOptions& options, int64_t rows) {
  BlockNeeds needs;
  needs.rows = rows;
  needs.lora = options.lora;
  needs.dropout = options.dropout > 0;
  needs.rounds = options.activation_bits > 0;
  needs.backward = true;
  return needs;
}

}  // namespace

int64_t WidestInput(const ModelConfig& c) { return std::max({c.hidden, c.q_dim(), c.ffn}); }

BlockActivations CarveActivations(Carver& carver, const ModelConfig& c, int64_t layer,
                                  const BlockNeeds& needs) {
  BlockActivations a = CarveBlock(carver, c, needs);
  if (needs.lora == nullptr) return a;
  for (LinearKind kind : kAllLinears) {
    const LoraSlot* slot = needs.lora->slot(layer, kind);
    if (slot == nullptr) continue;
    a.xa[static_cast<size_t>(kind)] = carver.Floats(needs.rows * slot->r);
  }
  return a;
}

BlockActivations CarveSharedActivations(Carver& carver, const ModelConfig& c,
                                        const BlockNeeds& needs) {
  BlockActivations a = CarveBlock(carver, c, needs);
  if (needs.lora == nullptr) return a;
  for (float*& xa : a.xa) xa = carver.Floats(needs.rows * needs.lora->max_rank());
  return a;
}

BlockScratch CarveScratch(Carver& carver, const ModelConfig& c, const BlockNeeds& needs) {
  const int64_t n = needs.rows;
  const int64_t widest = WidestInput(c);
  BlockScratch s;
  s.normed = carver.Floats(n * c.hidden);
  if (needs.rounds) s.adapter.rounded = carver.Floats(n * widest);
  if (needs.lora != nullptr && needs.dropout) s.adapter.dropped = carver.Floats(n * widest);
  if (!needs.backward) return s;
  s.dnormed = carver.Floats(n * c.hidden);
  if (c.sandwich_norms) s.dproj = carver.Floats(n * c.hidden);
  if (needs.lora != nullptr) {
    s.adapter.dxa = carver.Floats(n * needs.lora->max_rank());
    if (needs.dropout) s.adapter.ddropped = carver.Floats(n * widest);
  }
  // The MLP half of a backward pass is over when the attention half begins.
  const int64_t mark = carver.used();
  s.ffn = carver.Floats(n * c.ffn);
  s.dffn = carver.Floats(n * c.ffn);
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
  l.kept = !Recomputed(options, layer);
  if (l.kept) l.acts = CarveActivations(carver, c, layer, NeedsOf(options, rows));
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

  BlockNeeds needs = NeedsOf(options, max_tokens);
  bool shared_backward = false;
  if (options.layers_in_memory >= 0) {
    out.spilled = std::max<int64_t>(0, out.end - out.lowest - options.layers_in_memory);
  }
  for (int64_t layer = out.lowest; layer < out.end; ++layer) {
    PassLayout::Layer l;
    if (layer - out.lowest < out.spilled) {
      Carver piece;
      l.kept = CarveLayer(piece, c, layer, max_tokens, options).kept;
      l.spilled = true;
      out.piece_bytes = std::max(out.piece_bytes, piece.used());
    } else {
      l = CarveLayer(activations, c, layer, max_tokens, options);
    }
    shared_backward = shared_backward || !l.kept;
    out.layers.push_back(l);
  }
  out.hidden = activations.Floats(max_tokens * c.hidden);
  // Of a micro-batch, as what is kept: others may pass between its head and its layers.
  if (out.backward) out.dhidden = activations.Floats(max_tokens * c.hidden);

  const bool trains_layers = out.lowest < out.end;
  out.final_rstd = scratch.Floats(max_tokens);
  if (shared_backward || out.lowest > out.begin) {
    needs.backward = shared_backward;
    needs.own_x_mid = shared_backward;
    out.shared = CarveSharedActivations(scratch, c, needs);
  }
  needs.backward = trains_layers;
  out.scratch = CarveScratch(scratch, c, needs);
  if (!trains_layers) out.scratch.ffn = out.shared.gate;
  if (out.backward && !trains_layers) out.scratch.dnormed = scratch.Floats(max_tokens * c.hidden);
  return out;
}

}  // namespace edgewise::model
