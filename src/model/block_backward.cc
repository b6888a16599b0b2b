#include "kernels/elementwise.h"
#include "model/block.h"
#include "model/fake_quant.h"

namespace edgewise::model {
namespace {

using kernels::Accumulate;
using plan::KernelKind;

struct Backward {
  ExecContext& ctx;
  const Block& block;
  const ModelConfig& c;
  const LayerWeights& w;
  const BlockRows& rows;
  const BlockActivations& a;
  const BlockScratch& s;
  const LayerGradients& g;
  int64_t n;

  // Norm outputs are not kept: they are computed again from the norm's input.
  const float* Normed(const float* x, const float* gain) const {
    const PartTimer timer(block.times, KernelKind::kNorm);
    kernels::RmsNormForward(ctx, n, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one, x,
                            gain, s.normed, nullptr);
    return s.normed;
  }
  void Norm(const float* x, const float* gain, const float* rstd, const float* dy, float* dx,
            bool accumulate, float* dgain) const {
    const PartTimer timer(block.times, KernelKind::kNormBackward);
    kernels::RmsNormBackward(ctx, n, c.hidden, c.norm_plus_one, x, gain, rstd, dy, dx, accumulate,
                             dgain);
  }
  void HeadNorm(int64_t heads, const float* x, const float* gain, const float* rstd, float* dy,
                float* dgain) const {
    kernels::RmsNormBackward(ctx, n * heads, c.head_dim, c.norm_plus_one, x, gain, rstd, dy, dy,
                             /*accumulate_dx=*/false, dgain);
  }
  void Project(LinearKind kind, const float* x, const float* dy, float* dx, Accumulate acc) const {
    if (block.observer != nullptr) block.observer->Gradient(block.layer, kind, n, x, dy);
    AdaptedBackward(ctx, block.At(kind), g[kind], n, x, a.xa[static_cast<size_t>(kind)], dy, dx,
                    acc, s.adapter);
  }
  void RotateBack(int64_t heads, float* x) const {
    const PartTimer timer(block.times, KernelKind::kRotary);
    kernels::RopeApply(ctx, n, heads, c.head_dim, x, heads * c.head_dim, rows.positions,
                       block.rope.cos.data(), block.rope.sin.data(), /*inverse=*/true);
  }

  // Gradient at a projection's output, given that of the residual sum it is added to.
  const float* ProjectionGradient(const float* dy, const float* raw, const float* post_norm,
                                  const float* rstd, float* dgain) const {
    if (post_norm == nullptr) return dy;
    Norm(raw, post_norm, rstd, dy, s.dproj, /*accumulate=*/false, dgain);
    return s.dproj;
  }

  // y = x_mid + [norm] down(act(gate) * up); dy becomes the gradient at x_mid.
  void Mlp(float* dy) const {
    const float* dout =
        ProjectionGradient(dy, a.mlp_out, w.mlp_post_norm, a.mlp_post_rstd, g.mlp_post_norm);
    {
      const PartTimer timer(block.times, KernelKind::kGate);
      kernels::GatedForward(ctx, c.activation, n * c.ffn, a.gate, a.up, s.ffn);
    }
    Project(LinearKind::kDown, s.ffn, dout, s.dffn, Accumulate::kOverwrite);
    float *dgate = a.gate, *dup = a.up;
    {
      const PartTimer timer(block.times, KernelKind::kGateBackward);
      kernels::GatedBackward(ctx, c.activation, n * c.ffn, a.gate, a.up, s.dffn, dgate, dup);
    }
    const float* m = Normed(a.x_mid, w.mlp_norm);
    Project(LinearKind::kGate, m, dgate, s.dnormed, Accumulate::kOverwrite);
    Project(LinearKind::kUp, m, dup, s.dnormed, Accumulate::kAdd);
    Norm(a.x_mid, w.mlp_norm, a.mlp_rstd, s.dnormed, dy, /*accumulate=*/true, g.mlp_norm);
  }

  // x_mid = x + [norm] o(attention(q, k, v)); dy, at x_mid, becomes the gradient at x.
  void Attention(const float* x, bool need_dx, float* dy) const {
    const float* dout =
        ProjectionGradient(dy, a.attn_out, w.attn_post_norm, a.attn_post_rstd, g.attn_post_norm);
    Project(LinearKind::kO, a.attn, dout, s.dattn, Accumulate::kOverwrite);
    {
      const PartTimer timer(block.times, KernelKind::kAttentionBackward);
      kernels::AttentionBackward(ctx, block.attention_shape(), {rows.first_key, 0}, n, a.q,
                                 c.q_dim(), a.k, a.v, c.kv_dim(), a.attn, s.dattn, c.q_dim(), a.lse,
                                 s.dq, c.q_dim(), s.dk, s.dv, c.kv_dim());
    }
    RotateBack(c.heads, s.dq);
    RotateBack(c.kv_heads, s.dk);
    if (c.qk_norm) {
      HeadNorm(c.heads, a.q_raw, w.q_norm, a.q_rstd, s.dq, g.q_norm);
      HeadNorm(c.kv_heads, a.k_raw, w.k_norm, a.k_rstd, s.dk, g.k_norm);
    }
    if (block.activation_bits > 0) {
      StraightThrough(ctx, n * c.kv_dim(), a.k_unrounded, s.dk, s.dk, Accumulate::kOverwrite);
      StraightThrough(ctx, n * c.kv_dim(), a.v_unrounded, s.dv, s.dv, Accumulate::kOverwrite);
    }
    const bool through = need_dx || g.attn_norm != nullptr;
    float* dnormed = through ? s.dnormed : nullptr;
    const float* m = Normed(x, w.attn_norm);
    Project(LinearKind::kQ, m, s.dq, dnormed, Accumulate::kOverwrite);
    Project(LinearKind::kK, m, s.dk, dnormed, Accumulate::kAdd);
    Project(LinearKind::kV, m, s.dv, dnormed, Accumulate::kAdd);
    if (through) {
      Norm(x, w.attn_norm, a.attn_rstd, s.dnormed, dy, /*accumulate=*/true, g.attn_norm);
    }
  }
};

// Whether the attention half holds anything to train.
bool TrainsAttention(const LayerGradients& g) {
  for (LinearKind kind : {LinearKind::kQ, LinearKind::kK, LinearKind::kV, LinearKind::kO}) {
    if (g[kind].weight != nullptr || g[kind].lora_a != nullptr) return true;
  }
  return g.attn_norm != nullptr || g.attn_post_norm != nullptr || g.q_norm != nullptr ||
         g.k_norm != nullptr;
}

}  // namespace

void BlockBackward(ExecContext& ctx, const Block& block, const BlockRows& rows, const float* x,
                   const BlockActivations& acts, const BlockScratch& scratch,
                   const LayerGradients& grads, bool need_dx, float* dy) {
  const Backward b{ctx, block, block.config, block.weights, rows, acts, scratch, grads, rows.count};
  if (block.mlp_rows == 0) {
    b.Mlp(dy);
  } else {
    for (int64_t first = 0; first < rows.count; first += block.mlp_rows) {
      const MlpPiece p(block, rows, acts, first);
      BlockMlpForward(ctx, p.block, p.rows, /*y=*/nullptr, p.acts, scratch);
      Backward{ctx,    p.block, block.config, block.weights, p.rows,
               p.acts, scratch, grads,        p.rows.count}
          .Mlp(dy + first * block.config.hidden);
    }
  }
  if (need_dx || TrainsAttention(grads)) b.Attention(x, need_dx, dy);
}

}  // namespace edgewise::model
