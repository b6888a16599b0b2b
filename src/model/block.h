// One decoder layer, forward and backward:
//
//   x_mid = x     + [norm] o(attention(rope([norm] q(n)), rope([norm] k(n)), v(n))),  n = norm(x)
//   y     = x_mid + [norm] down(act(gate(m)) * up(m)),                                m =
//   norm(x_mid)
//
// The norms in brackets and the biases are there where the architecture has them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "exec/context.h"
#include "kernels/attention.h"
#include "model/adapted_linear.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/linear_observer.h"
#include "model/parameters.h"
#include "model/part_times.h"
#include "model/rope.h"
#include "model/weights.h"

namespace edgewise::model {

struct Block {
  const ModelConfig& config;
  int64_t layer;
  const LayerWeights& weights;
  const RopeTable& rope;
  const LoraAdapter* lora = nullptr;   // null: not adapted
  Dropout dropout = {};                // of the whole pass; At() derives the one of a linear
  LinearObserver* observer = nullptr;  // null: nobody looks
  kernels::LinearBackwardOptions backward = {};  // of the whole pass, like dropout
  PartTimes* times = nullptr;                    // null: nobody asks
  int activation_bits = 0;                       // PassOptions::activation_bits
  bool exact_forward = false;                    // PassOptions::exact_forward
  // The MLP half takes so many rows at a time, and its part of BlockActivations holds as many: the
  // backward pass computes it again, piece by piece. Same bits for multiples of
  // kernels::kTokenBlock. 0: all rows at once, kept.
  int64_t mlp_rows = 0;
  int64_t first_row = 0;  // of a call that sees a piece: what is drawn is drawn by row

  AdaptedLinear At(LinearKind kind) const;
  kernels::AttentionShape attention_shape() const;
};

// Keys and values of earlier rows; the rows of the call follow them at cache.length().
struct BlockCache {
  KvCache* cache = nullptr;
  int64_t from = 0;          // first_key counts from this position of the cache
  float* scratch = nullptr;  // KvCache::Read's
};

// Some of the rows of a call: one of several streams that go through a layer together, so that
// its weights are read once, each with an adapter and a cache of its own.
struct BlockStream {
  int64_t rows = 0;
  const LoraAdapter* lora = nullptr;
  BlockCache cache;
};

// The rows that a call computes, and what they may attend to.
struct BlockRows {
  int64_t count = 0;
  const int32_t* positions = nullptr;  // [count], of the rotary embedding
  const int32_t* first_key = nullptr;  // [count], window of this layer included
  // Inference only: the rows are those of these streams, one after the other, and `Block::lora` and
  // the call's cache are not used. Empty: one stream.
  std::span<const BlockStream> streams = {};
};

// What the backward pass needs of the forward pass, besides x. All [rows, ...], fp32. Without a
// backward pass the same buffers are scratch.
struct BlockActivations {
  float* attn_rstd = nullptr;  // [rows]
  float* q_raw = nullptr;      // [rows, q_dim], before q_norm (qk_norm only)
  float* k_raw = nullptr;      // [rows, kv_dim]
  float* q_rstd = nullptr;     // [rows, heads]
  float* k_rstd = nullptr;     // [rows, kv_heads]
  float* q = nullptr;          // [rows, q_dim], rotated
  float* k = nullptr;          // [rows, kv_dim], rotated
  float* v = nullptr;          // [rows, kv_dim]
  float* attn = nullptr;       // [rows, q_dim]
  float* lse = nullptr;        // [heads, rows]
  float* attn_out = nullptr;   // [rows, hidden], before the post norm (sandwich only)
  float* attn_post_rstd = nullptr;
  float* k_unrounded = nullptr;  // [rows, kv_dim], with activation_bits only
  float* v_unrounded = nullptr;
  float* x_mid = nullptr;  // [rows, hidden]
  // The MLP half: [rows or Block::mlp_rows, ...], the xa of gate, up and down, too.
  float* mlp_rstd = nullptr;
  float* gate = nullptr;     // [rows, ffn]
  float* up = nullptr;       // [rows, ffn]
  float* mlp_out = nullptr;  // [rows, hidden] (sandwich only)
  float* mlp_post_rstd = nullptr;
  std::array<float*, kLinearKinds> xa{};  // [rows, r] of each adapted linear
};

struct BlockScratch {
  float* normed = nullptr;  // [rows, hidden]
  float* ffn = nullptr;     // [rows, ffn]; may be the activations' gate when they are not kept
  // Backward only. The attention buffers may share storage with ffn and dffn.
  float* dffn = nullptr;     // [rows, ffn]
  float* dnormed = nullptr;  // [rows, hidden]
  float* dproj = nullptr;    // [rows, hidden] (sandwich only)
  float* dattn = nullptr;    // [rows, q_dim]
  float* dq = nullptr;       // [rows, q_dim]
  float* dk = nullptr;       // [rows, kv_dim]
  float* dv = nullptr;       // [rows, kv_dim]
  AdapterScratch adapter;
};

// y may be x, and `acts.x_mid` may be x when nothing is kept. y = null (recomputation): what the
// backward pass needs; of a block with mlp_rows the attention half alone. `cache` null: the rows
// attend to each other only.
void BlockForward(ExecContext& ctx, const Block& block, const BlockRows& rows, const float* x,
                  float* y, const BlockActivations& acts, const BlockScratch& scratch,
                  const BlockCache* cache = nullptr);

// The MLP half alone: y = MLP(acts.x_mid), or, with y = null, what its backward pass needs.
void BlockMlpForward(ExecContext& ctx, const Block& block, const BlockRows& rows, float* y,
                     const BlockActivations& acts, const BlockScratch& scratch);

// A piece of the MLP half of `block`: rows first .. first + count - 1, count <= mlp_rows.
struct MlpPiece {
  MlpPiece(const Block& block, const BlockRows& rows, const BlockActivations& acts, int64_t first);
  Block block;
  BlockRows rows;
  BlockActivations acts;
};

// dy [rows, hidden] becomes dx in place (with need_dx; undefined otherwise), gradients are added to
// `grads`. `acts` are those of the forward pass; gate and up are destroyed.
void BlockBackward(ExecContext& ctx, const Block& block, const BlockRows& rows, const float* x,
                   const BlockActivations& acts, const BlockScratch& scratch,
                   const LayerGradients& grads, bool need_dx, float* dy);

}  // namespace edgewise::model
