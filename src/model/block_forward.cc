#include <algorithm>

#include "kernels/elementwise.h"
#include "model/block.h"
#include "model/fake_quant.h"

namespace edgewise::model {
namespace {

using kernels::Accumulate;
using plan::KernelKind;

struct Forward {
  ExecContext& ctx;
  const Block& block;
  const ModelConfig& c;
  const LayerWeights& w;
  const BlockRows& rows;
  const BlockActivations& a;
  const BlockScratch& s;
  int64_t n;

  // Whether nobody but the linears themselves sees their inputs, which then need not be written.
  bool Plain() const {
    return block.observer == nullptr && block.lora == nullptr && rows.streams.empty() &&
           block.activation_bits == 0 && !block.exact_forward && block.times == nullptr;
  }
  void Norm(const float* x, const float* gain, float* y, float* rstd) const {
    const PartTimer timer(block.times, KernelKind::kNorm);
    kernels::RmsNormForward(ctx, n, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one, x,
                            gain, y, rstd);
  }
  void HeadNorm(int64_t heads, const float* x, const float* gain, float* y, float* rstd) const {
    kernels::RmsNormForward(ctx, n * heads, c.head_dim, static_cast<float>(c.norm_eps),
                            c.norm_plus_one, x, gain, y, rstd);
  }
  void Project(LinearKind kind, const float* x, float* y, Accumulate acc) const {
    if (block.observer != nullptr) block.observer->Input(block.layer, kind, n, x);
    AdaptedForward(ctx, block.At(kind), n, x, y, acc, a.xa[static_cast<size_t>(kind)], s.adapter);
    StreamAdapters(kind, x, y);
  }
  void StreamAdapters(LinearKind kind, const float* x, float* y) const {
    for (const BlockStream& stream : rows.streams) {
      const LoraSlot* slot =
          stream.lora != nullptr ? stream.lora->slot(block.layer, kind) : nullptr;
      if (slot != nullptr) {
        kernels::LoraForward(ctx, stream.rows, slot->in, slot->out, slot->r, slot->scale, x,
                             slot->in, slot->a, slot->b, a.xa[static_cast<size_t>(kind)], y,
                             slot->out);
      }
      x += stream.rows * w[kind].weight.cols;
      y += stream.rows * w[kind].weight.rows;
    }
  }
  // Several projections of the same x, overwriting.
  template <size_t N>
  void ProjectAll(const LinearKind (&kinds)[N], const float* x, float* const (&y)[N]) const {
    kernels::LinearTarget targets[N];
    for (size_t i = 0; i < N; ++i) {
      if (block.observer != nullptr) block.observer->Input(block.layer, kinds[i], n, x);
      const Linear& base = w[kinds[i]];
      targets[i] = {base.weight, base.bias, y[i], base.weight.rows};
      targets[i].low_rank = AdapterInput(ctx, block.At(kinds[i]), n, x,
                                         a.xa[static_cast<size_t>(kinds[i])], s.adapter);
    }
    const float* input = x;
    if (block.activation_bits > 0) {
      FakeQuantize(ctx, block.activation_bits, n, c.hidden, x, s.adapter.rounded);
      input = s.adapter.rounded;
    }
    {
      const PartTimer timer(block.times, KernelKind::kLinearForward);
      if (block.exact_forward) {
        for (const kernels::LinearTarget& t : targets) {
          kernels::LinearForwardExact(ctx, n, input, c.hidden, t.w, t.bias, t.y, t.ldy);
          kernels::LowRankAdd(ctx, n, t.w.rows, t.low_rank, t.y, t.ldy);
        }
      } else {
        kernels::LinearForwardMany(ctx, n, input, c.hidden, targets);
      }
    }
    for (size_t i = 0; i < N; ++i) {
      StreamAdapters(kinds[i], x, y[i]);
    }
  }
  // Projections of norm(x).
  template <size_t N>
  void ProjectNormed(const LinearKind (&kinds)[N], const float* x, const float* gain, float* rstd,
                     float* const (&y)[N]) const {
    if (!Plain()) {
      Norm(x, gain, s.normed, rstd);
      return ProjectAll(kinds, s.normed, y);
    }
    kernels::LinearTarget targets[N];
    for (size_t i = 0; i < N; ++i) {
      const Linear& base = w[kinds[i]];
      targets[i] = {base.weight, base.bias, y[i], base.weight.rows};
    }
    const auto norm = [&](int64_t begin, int64_t end, float* out) {
      kernels::RmsNormRows(ctx.isa(), end - begin, c.hidden, static_cast<float>(c.norm_eps),
                           c.norm_plus_one, x + begin * c.hidden, gain, out,
                           rstd == nullptr ? nullptr : rstd + begin);
    };
    kernels::LinearForwardMade(ctx, n, norm, s.normed, targets);
  }
  // y = a.x_mid + down(act(gate) * up), without a post norm.
  void AddDownPlain(float* y) const {
    if (y != a.x_mid) std::copy_n(a.x_mid, n * c.hidden, y);
    const Linear& base = w[LinearKind::kDown];
    const kernels::LinearTarget target = {base.weight, base.bias, y, c.hidden, Accumulate::kAdd};
    const auto gated = [&](int64_t begin, int64_t end, float* out) {
      kernels::GatedRows(ctx.isa(), c.activation, (end - begin) * c.ffn, a.gate + begin * c.ffn,
                         a.up + begin * c.ffn, out);
    };
    kernels::LinearForwardMade(ctx, n, gated, s.ffn, {&target, 1});
  }
  void Rotate(int64_t heads, float* x) const {
    const PartTimer timer(block.times, KernelKind::kRotary);
    kernels::RopeApply(ctx, n, heads, c.head_dim, x, heads * c.head_dim, rows.positions,
                       block.rope.cos.data(), block.rope.sin.data(), /*inverse=*/false);
  }

  // out = residual + [post norm] projection(x). out may be residual.
  void AddProjection(LinearKind kind, const float* x, const float* residual, const float* post_norm,
                     float* raw, float* rstd, float* out) const {
    if (out != residual) {
      const PartTimer timer(block.times, KernelKind::kElementwise);
      std::copy_n(residual, n * c.hidden, out);
    }
    if (post_norm == nullptr) {
      Project(kind, x, out, Accumulate::kAdd);
      return;
    }
    Project(kind, x, raw, Accumulate::kOverwrite);
    Norm(raw, post_norm, s.normed, rstd);
    kernels::AddInPlace(ctx, n * c.hidden, s.normed, out);
  }

  void QueriesKeysValues(const float* x) const {
    float* k = c.qk_norm ? a.k_raw : a.k;
    const bool rounds = block.activation_bits > 0;
    ProjectNormed(
        {LinearKind::kQ, LinearKind::kK, LinearKind::kV}, x, w.attn_norm, a.attn_rstd,
        {c.qk_norm ? a.q_raw : a.q, rounds ? a.k_unrounded : k, rounds ? a.v_unrounded : a.v});
    if (rounds) {
      FakeQuantize(ctx, block.activation_bits, n, c.kv_dim(), a.k_unrounded, k);
      FakeQuantize(ctx, block.activation_bits, n, c.kv_dim(), a.v_unrounded, a.v);
    }
    if (c.qk_norm) {
      HeadNorm(c.heads, a.q_raw, w.q_norm, a.q, a.q_rstd);
      HeadNorm(c.kv_heads, a.k_raw, w.k_norm, a.k, a.k_rstd);
    }
    Rotate(c.heads, a.q);
    Rotate(c.kv_heads, a.k);
  }

  void Attend(const BlockCache* cache) const {
    const PartTimer timer(block.times, KernelKind::kAttention);
    if (rows.streams.empty()) return AttendRows(cache, 0, n);
    int64_t first = 0;
    for (const BlockStream& stream : rows.streams) {
      AttendRows(&stream.cache, first, stream.rows);
      first += stream.rows;
    }
  }

  void AttendRows(const BlockCache* cache, int64_t first, int64_t count) const {
    const float *k = a.k + first * c.kv_dim(), *v = a.v + first * c.kv_dim();
    kernels::AttentionMask mask{rows.first_key + first, 0};
    KvCache::View kv{k, v};
    if (cache != nullptr) {
      const int64_t at = cache->cache->length();
      cache->cache->Write(ctx, block.layer, at, count, k, v);
      // A single query attends to rounded keys and values where they are.
      if (const auto rounded = cache->cache->EncodedRows(block.layer); rounded && count == 1) {
        kernels::KvAttention(ctx, block.attention_shape(), rounded->type, a.q + first * c.q_dim(),
                             cache->from + rows.first_key[first], at + 1, rounded->k, rounded->v,
                             a.attn + first * c.q_dim());
        return;
      }
      kv = cache->cache->Read(ctx, block.layer, cache->from, at + count - cache->from,
                              cache->scratch);
      mask.q_offset = at - cache->from;
    }
    kernels::AttentionForward(ctx, block.attention_shape(), mask, count, a.q + first * c.q_dim(),
                              c.q_dim(), kv.k, kv.v, c.kv_dim(), a.attn + first * c.q_dim(),
                              c.q_dim(), a.lse);
  }

  void Mlp(float* y) const {
    ProjectNormed({LinearKind::kGate, LinearKind::kUp}, a.x_mid, w.mlp_norm, a.mlp_rstd,
                  {a.gate, a.up});
    const AdaptedLinear down = block.At(LinearKind::kDown);
    if (y == nullptr && w.mlp_post_norm == nullptr && down.lora == nullptr) return;
    if (y != nullptr && w.mlp_post_norm == nullptr && Plain()) return AddDownPlain(y);
    {
      const PartTimer timer(block.times, KernelKind::kGate);
      kernels::GatedForward(ctx, c.activation, n * c.ffn, a.gate, a.up, s.ffn);
    }
    if (y == nullptr && w.mlp_post_norm == nullptr) {
      AdapterInput(ctx, down, n, s.ffn, a.xa[static_cast<size_t>(LinearKind::kDown)], s.adapter);
      return;
    }
    if (y == nullptr) {
      Project(LinearKind::kDown, s.ffn, a.mlp_out, Accumulate::kOverwrite);
      Norm(a.mlp_out, w.mlp_post_norm, s.normed, a.mlp_post_rstd);
      return;
    }
    AddProjection(LinearKind::kDown, s.ffn, a.x_mid, w.mlp_post_norm, a.mlp_out, a.mlp_post_rstd,
                  y);
  }
};

}  // namespace

AdaptedLinear Block::At(LinearKind kind) const {
  // One stream of random numbers per linear of the model.
  const auto derive = [&](uint64_t of_pass) {
    return (of_pass * static_cast<uint64_t>(config.num_layers()) + static_cast<uint64_t>(layer)) *
               kLinearKinds +
           static_cast<uint64_t>(kind);
  };
  AdaptedLinear linear{weights[kind], nullptr, {}, backward, times, activation_bits, exact_forward};
  linear.backward.substream = derive(backward.substream);
  linear.backward.first_row = first_row;
  if (lora == nullptr) return linear;
  linear.lora = lora->slot(layer, kind);
  linear.dropout = dropout;
  linear.dropout.substream = derive(dropout.substream);
  linear.dropout.first = first_row * weights[kind].weight.cols;
  return linear;
}

kernels::AttentionShape Block::attention_shape() const {
  return {config.heads, config.kv_heads, config.head_dim, config.attn_scale, config.attn_softcap};
}

void BlockForward(ExecContext& ctx, const Block& block, const BlockRows& rows, const float* x,
                  float* y, const BlockActivations& acts, const BlockScratch& scratch,
                  const BlockCache* cache) {
  const Forward f{ctx, block, block.config, block.weights, rows, acts, scratch, rows.count};
  f.QueriesKeysValues(x);
  f.Attend(cache);
  f.AddProjection(LinearKind::kO, acts.attn, x, block.weights.attn_post_norm, acts.attn_out,
                  acts.attn_post_rstd, acts.x_mid);
  if (block.mlp_rows == 0) return f.Mlp(y);
  if (y == nullptr) return;
  for (int64_t first = 0; first < rows.count; first += block.mlp_rows) {
    const MlpPiece p(block, rows, acts, first);
    BlockMlpForward(ctx, p.block, p.rows, y + first * block.config.hidden, p.acts, scratch);
  }
}

void BlockMlpForward(ExecContext& ctx, const Block& block, const BlockRows& rows, float* y,
                     const BlockActivations& acts, const BlockScratch& scratch) {
  Forward{ctx, block, block.config, block.weights, rows, acts, scratch, rows.count}.Mlp(y);
}

MlpPiece::MlpPiece(const Block& whole, const BlockRows& all, const BlockActivations& kept,
                   int64_t first)
    : block(whole), rows(all), acts(kept) {
  block.first_row += first;
  rows.count = std::min(whole.mlp_rows, all.count - first);
  acts.x_mid += first * whole.config.hidden;
}

}  // namespace edgewise::model
