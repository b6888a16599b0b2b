// Rows with a label are taken in chunks. First pass over the vocabulary: log-sum-exp and, in the
// same sweep, sum_v exp(z_v - max) W_v with the running maximum, which is the gradient of the
// hidden state up to a factor (the same trick as in attention), so logits are computed once. The
// gradients of the head itself need the final log-sum-exp and take a second sweep, downwards, so
// that of a head in blocks the last ones are still there; tiles that the first sweep put off are
// the lowest and come last.
#include "kernels/loss.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/head_tile.h"
#include "kernels/linear.h"

namespace edgewise::kernels {
namespace {

// Hidden rows and their gradients of one chunk, and packed tiles in flight.
constexpr int64_t kChunkBytes = 10 << 20;
constexpr int64_t kTilesBytes = 4 << 20;
constexpr int64_t kMaxTiles = 8;
// When blocks may be left out, the gradient of the first tiles waits for the final log-sum-exp: the
// running one does not rule out much yet.
constexpr int64_t kDeferredTiles = 64;
constexpr int64_t kFloat = sizeof(float);

class HeadLossRun {
 public:
  HeadLossRun(ExecContext& ctx, const HeadLossArgs& a)
      : ctx_(ctx),
        a_(a),
        t_(TableFor(ctx.isa())),
        h_(a.head.cols),
        vocab_(a.head.rows),
        r_(a.lora_r),
        group_(int64_t{t_.mr} * std::max(1, 56 / t_.mr)),
        packer_(ctx, a.head, a.lora_b, a.lora_r, a.backward),
        backward_(a.grad_scale != 0),
        want_dx_(backward_ && (a.dhidden != nullptr || (r_ > 0 && a.dlora_a != nullptr))),
        pack_late_(a.skip_below > 0),
        want_dhead_(backward_ && (a.dhead != nullptr || (r_ > 0 && a.dlora_b != nullptr))) {}

  HeadLossResult Run() {
    for (int64_t t = 0; t < a_.tokens; ++t) {
      if (a_.token_loss != nullptr) a_.token_loss[t] = 0;
      if (a_.targets[t] >= 0) rows_.push_back(t);
    }
    if (a_.dhidden != nullptr) {
      ctx_.ParallelFor(a_.tokens, 64, [&](int64_t begin, int64_t end, int) {
        std::fill(a_.dhidden + begin * h_, a_.dhidden + end * h_, 0.0f);
      });
    }
    if (rows_.empty()) return result_;
    if (r_ > 0) {
      ha_ = FloatBuffer(a_.tokens * r_);
      MatMulNT(ctx_, a_.tokens, r_, h_, a_.lora_scale, a_.hidden, h_,
               WeightRef::Dense(a_.lora_a, r_, h_), ha_.data(), r_);
      if (want_dx_) dxb_ = FloatBuffer::Zeros(a_.tokens * r_);
    }
    const int64_t labelled = static_cast<int64_t>(rows_.size()), chunk = ChunkRows(labelled);
    for (int64_t begin = 0; begin < labelled; begin += chunk) {
      if (!Chunk(begin, std::min(chunk, labelled - begin))) return result_;
    }
    FinishLora();
    result_.dhidden_blocks = dhidden_blocks_;
    result_.dhead_blocks = dhead_blocks_;
    return result_;
  }

  // Of HeadLossOrder.
  std::vector<int64_t> Order() const {
    const int64_t labelled = std::count_if(a_.targets, a_.targets + a_.tokens,
                                           [](int32_t target) { return target >= 0; });
    const std::vector<int64_t> up = Blocks();
    std::vector<int64_t> order;
    if (labelled == 0) return order;
    for (int64_t c = CeilDiv(labelled, ChunkRows(labelled)); c > 0; --c) {
      order.insert(order.end(), up.begin(), up.end());
      if (want_dhead_) order.insert(order.end(), up.rbegin(), up.rend());
      for (int64_t first : up) {
        if (first < Deferred() * kHeadTile) order.push_back(first);
      }
    }
    return order;
  }

 private:
  int64_t Tiles() const { return CeilDiv(vocab_, kHeadTile); }
  int64_t Deferred() const {
    return pack_late_ && want_dx_ ? std::min(kDeferredTiles, CeilDiv(Tiles(), 8)) : 0;
  }
  int64_t BlockEnd(int64_t first) const {
    return a_.source != nullptr ? a_.source->BlockEnd(first) : vocab_;
  }
  std::vector<int64_t> Blocks() const {
    std::vector<int64_t> firsts;
    for (int64_t first = 0; first < vocab_; first = BlockEnd(first)) firsts.push_back(first);
    return firsts;
  }
  // Each chunk packs the whole head: as few as fit, and none of a few rows.
  int64_t ChunkRows(int64_t labelled) const {
    const int64_t x_bytes = packer_.integer() != nullptr ? h_ + r_ * kFloat : (h_ + r_) * kFloat;
    const int64_t row_bytes = x_bytes + (want_dx_ ? (h_ + r_) * kFloat : 0);
    const int64_t most = std::max(group_, kChunkBytes / row_bytes / group_ * group_);
    return RoundUp(CeilDiv(labelled, CeilDiv(labelled, most)), group_);
  }
  bool Hold(int64_t first) { return a_.source == nullptr || a_.source->Hold(first); }

  int32_t Target(int64_t row) const { return targets_[static_cast<size_t>(row)]; }

  bool Chunk(int64_t begin, int64_t rows) {
    begin_ = begin;
    n_ = rows;
    padded_ = RoundUp(rows, t_.mr);
    state_.assign(static_cast<size_t>(rows), LogitsRow{});
    targets_.resize(static_cast<size_t>(rows));
    scale_.resize(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t token = rows_[static_cast<size_t>(begin + i)];
      state_[static_cast<size_t>(i)].max = -std::numeric_limits<float>::infinity();
      targets_[static_cast<size_t>(i)] = a_.targets[token];
      scale_[static_cast<size_t>(i)] =
          a_.grad_scale * (a_.weights == nullptr ? 1.0f : a_.weights[token]);
    }
    // Shared memory: packed hidden rows, gradients, packed tiles.
    tile_floats_ =
        packer_.logits_floats() + (want_dx_ && !pack_late_ ? packer_.gradient_floats() : 0);
    tiles_ = std::clamp(kTilesBytes / (tile_floats_ * kFloat), int64_t{1}, kMaxTiles);
    // (Whole cache lines: integer panels want to start at one.)
    const int64_t x_floats = RoundUp(padded_ * packer_.x_width(), 16);
    const int64_t o_floats = want_dx_ ? RoundUp(n_ * (h_ + r_), 16) : 0;
    QuantizePlan plan;
    if (packer_.integer() != nullptr) plan = packer_.integer()->Plan(n_);
    const int64_t rounded_floats = RoundUp(plan.bytes, 64) / kFloat;
    auto* shared = static_cast<float*>(ctx_.SharedScratch(static_cast<size_t>(
        (x_floats + o_floats + rounded_floats + tiles_ * tile_floats_) * kFloat)));
    x_ = shared;
    o_ = x_ + x_floats;
    packed_ = o_ + o_floats + rounded_floats;
    rounded_ = QuantizedRows::At(plan, o_ + o_floats);
    PackHidden();
    if (!FirstSweep()) return false;
    FindLimits();
    FinishLosses();
    if (want_dhead_ && !SecondSweep()) return false;
    if (!DeferredSweep()) return false;
    if (want_dx_) FinishGradients();
    return true;
  }

  // x_ = [hidden | lora_scale hidden A^T] of the chunk's rows, in panels for each block of k.
  void PackHidden() {
    const HeadBlocks& blocks = packer_.blocks();
    ctx_.pool().Run(CeilDiv(n_, t_.mr), [&](int64_t panel, int worker) {
      const int64_t r0 = panel * t_.mr, rows = std::min<int64_t>(t_.mr, n_ - r0);
      auto* gathered =
          static_cast<float*>(ctx_.Scratch(worker, static_cast<size_t>(rows * (h_ + r_) * kFloat)));
      float* low = gathered + rows * h_;
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t token = rows_[static_cast<size_t>(begin_ + r0 + i)];
        std::copy_n(a_.hidden + token * h_, h_, gathered + i * h_);
        if (r_ > 0) std::copy_n(ha_.data() + token * r_, r_, low + i * r_);
      }
      if (packer_.integer() != nullptr) {
        for (int64_t i = 0; i < rows; ++i) {
          RoundRow(ctx_, gathered + i * h_, h_, packer_.integer()->group(), r0 + i, rounded_);
        }
      }
      for (int64_t b = packer_.first_block(); b < blocks.count(); ++b) {
        const int64_t k0 = blocks.start(b), kk = blocks.size(b);
        const bool is_low = k0 == h_;
        t_.pack_a(ALayout::kRowMajor, is_low ? low : gathered + k0, is_low ? r_ : h_, rows, kk,
                  x_ + padded_ * packer_.x_start(b) + r0 * kk);
      }
    });
  }

  // Logits of a group, and per row a correction and a maximum; whole cache lines.
  int64_t z_floats() const { return RoundUp(group_ * (kHeadTile + 2), 16); }
  float* DxRow(int64_t row) { return o_ + row * h_; }
  float* DxbRow(int64_t row) { return o_ + n_ * h_ + row * r_; }

  bool FirstSweep() {
    if (want_dx_) {
      ctx_.ParallelFor(n_, group_, [&](int64_t begin, int64_t end, int) {
        std::fill(DxRow(begin), DxRow(end), 0.0f);
        if (r_ > 0) std::fill(DxbRow(begin), DxbRow(end), 0.0f);
      });
    }
    const int64_t tiles = Tiles();
    deferred_ = Deferred();
    tracked_ = pack_late_ && want_dhead_ ? tiles : deferred_;
    largest_.resize(static_cast<size_t>(tracked_ * n_));
    result_.blocks += tiles * CeilDiv(n_, group_);
    std::vector<int64_t> all(static_cast<size_t>(tiles));
    for (int64_t i = 0; i < tiles; ++i) all[static_cast<size_t>(i)] = i;
    return Sweep(
        all, [&](int64_t row, Tile& tile, float* z) { Block(row, tile, z); },
        [&](int64_t first) { KeepTargetRows(first); });
  }

  // Of a head in blocks the targets' rows are kept, where the gradients of the hidden rows will be.
  void KeepTargetRows(int64_t first) {
    if (a_.source == nullptr || !want_dx_ || a_.dhidden == nullptr) return;
    const int64_t end = BlockEnd(first);
    ctx_.ParallelFor(n_, 16, [&](int64_t begin, int64_t stop, int) {
      for (int64_t i = begin; i < stop; ++i) {
        if (Target(i) < first || Target(i) >= end) continue;
        WeightRowsToF32(a_.head, Target(i), 1,
                        a_.dhidden + rows_[static_cast<size_t>(begin_ + i)] * h_);
      }
    });
  }

  // The tiles put off by the first sweep, as far as they still matter.
  bool DeferredSweep() {
    if (deferred_ == 0) return true;
    // exp(logit - maximum), the weights of the sums o_, is what logits_vjp makes of rows whose
    // log-sum-exp is the maximum and that have no target.
    std::vector<LogitsRow> shifted = state_;
    for (LogitsRow& row : shifted) row.lse = row.max;
    const std::vector<float> ones(static_cast<size_t>(n_), 1.0f);
    const std::vector<int32_t> none(static_cast<size_t>(n_), -1);
    std::vector<int64_t> needed;
    for (int64_t i = 0; i < deferred_; ++i) {
      bool any = false;
      for (int64_t row = 0; row < n_ && !any; row += group_) any = Matters(i, row);
      if (any) needed.push_back(i);
    }
    const auto block = [&](int64_t row, Tile& tile, float* z) {
      if (!Matters(tile.index, row)) return;
      const int64_t rows = std::min(group_, n_ - row);
      packer_.Logits(row, rows, padded_, x_, rounded_, tile.columns, tile.logits, z, kHeadTile);
      t_.logits_vjp(rows, tile.columns, z, kHeadTile, a_.softcap, tile.first, none.data(),
                    shifted.data() + row, ones.data());
      AddGradient(row, rows, tile, z);
    };
    return Sweep(needed, block, [](int64_t) {});
  }

  // The logit of each row whose probability is skip_below.
  void FindLimits() {
    if (tracked_ == 0) return;
    limits_.resize(static_cast<size_t>(n_));
    for (int64_t i = 0; i < n_; ++i) {
      const LogitsRow& s = state_[static_cast<size_t>(i)];
      limits_[static_cast<size_t>(i)] =
          static_cast<float>(static_cast<double>(s.max) + std::log(s.sum * a_.skip_below));
    }
  }

  // Whether a probability of the group at `row` in a tracked tile reaches the limit.
  bool Matters(int64_t tile, int64_t row) const {
    const int64_t end = std::min(row + group_, n_);
    const float* largest = largest_.data() + tile * n_;
    for (int64_t i = row; i < end; ++i) {
      if (!(largest[i] < limits_[static_cast<size_t>(i)])) return true;
    }
    return false;
  }

  bool HoldsTarget(int64_t first, int64_t columns, int64_t row) const {
    const int64_t end = std::min(row + group_, n_);
    for (int64_t i = row; i < end; ++i) {
      if (Target(i) >= first && Target(i) < first + columns) return true;
    }
    return false;
  }

  struct Tile {
    int64_t index, first, columns;  // of the vocabulary
    const float* logits;
    const float* gradient;  // null: not packed yet
  };

  // block(row, tile, z) for every group of rows and each of the tiles, which are packed a few at a
  // time. Groups are fixed, since leaving out a block is decided group by group; how many of them
  // make a task is not. enter(first row) when a block of the head is there.
  template <typename BlockFn, typename EnterFn>
  bool Sweep(const std::vector<int64_t>& indices, BlockFn block, EnterFn enter) {
    const int64_t groups = CeilDiv(n_, group_);
    const int64_t per_task = std::clamp(groups / (2 * ctx_.threads()), int64_t{1}, int64_t{4});
    // Logits, corrections and maxima of a group; after them room for packing late.
    const int64_t z_bytes =
        (z_floats() + (pack_late_ ? packer_.gradient_floats() + packer_.scratch_floats() : 0)) *
        kFloat;
    const auto count = static_cast<int64_t>(indices.size());
    int64_t tiles = 0, first = 0, end = 0;  // rows of the head's block at hand
    for (int64_t begin = 0; begin < count; begin += tiles) {
      const int64_t row = indices[static_cast<size_t>(begin)] * kHeadTile;
      if (row >= end) {
        for (; row >= end; end = BlockEnd(first)) first = end;
        if (!Hold(first)) return false;
        enter(first);
      }
      tiles = std::min(tiles_, count - begin);
      while (indices[static_cast<size_t>(begin + tiles - 1)] * kHeadTile >= end) --tiles;
      auto at = [&](int64_t i) {
        const int64_t index = indices[static_cast<size_t>(begin + i)], entry = index * kHeadTile;
        float* logits = packed_ + i * tile_floats_;
        return Tile{index, entry, std::min(kHeadTile, vocab_ - entry), logits,
                    pack_late_ ? nullptr : logits + packer_.logits_floats()};
      };
      ctx_.pool().Run(tiles, [&](int64_t i, int worker) {
        const Tile tile = at(i);
        float* logits = packed_ + i * tile_floats_;
        auto* scratch = static_cast<float*>(
            ctx_.Scratch(worker, static_cast<size_t>(packer_.scratch_floats() * kFloat)));
        packer_.PackLogits(tile.first, tile.columns, scratch, logits);
        if (want_dx_ && !pack_late_) {
          packer_.PackGradient(tile.first, tile.columns, scratch, logits + packer_.logits_floats());
        }
      });
      ctx_.pool().Run(CeilDiv(groups, per_task), [&](int64_t task, int worker) {
        auto* z = static_cast<float*>(ctx_.Scratch(worker, static_cast<size_t>(z_bytes)));
        for (int64_t i = 0; i < tiles; ++i) {
          Tile tile = at(i);
          const int64_t last = std::min(groups, (task + 1) * per_task);
          for (int64_t g = task * per_task; g < last; ++g) block(g * group_, tile, z);
        }
      });
    }
    return true;
  }

  // Rows [row, row + group) of the first sweep against one tile.
  void Block(int64_t row, Tile& tile, float* z) {
    const int64_t rows = std::min(group_, n_ - row);
    float* correction = z + group_ * kHeadTile;
    const bool put_off = tile.index < deferred_;
    float* largest =
        tile.index < tracked_ ? largest_.data() + tile.index * n_ + row : correction + group_;
    packer_.Logits(row, rows, padded_, x_, rounded_, tile.columns, tile.logits, z, kHeadTile);
    const float bound =
        t_.logits_step(rows, tile.columns, z, kHeadTile, a_.softcap, tile.first,
                       targets_.data() + row, state_.data() + row, correction, largest);
    if (!want_dx_ || put_off) return;  // (Nothing has been summed up yet.)
    for (int64_t i = 0; i < rows; ++i) {
      if (correction[i] == 1.0f) continue;
      t_.scale(h_, correction[i], DxRow(row + i));
      if (r_ > 0) t_.scale(r_, correction[i], DxbRow(row + i));
    }
    if (!(bound < a_.skip_below)) AddGradient(row, rows, tile, z);
  }

  void AddGradient(int64_t row, int64_t rows, Tile& tile, float* z) {
    if (tile.gradient == nullptr) {
      float* gradient = z + z_floats();
      packer_.PackGradient(tile.first, tile.columns, gradient + packer_.gradient_floats(),
                           gradient);
      tile.gradient = gradient;
    }
    packer_.AddGradient(rows, tile.columns, z, kHeadTile, tile.gradient, DxRow(row), DxbRow(row));
    dhidden_blocks_.fetch_add(1, std::memory_order_relaxed);
  }

  void FinishLosses() {
    for (int64_t i = 0; i < n_; ++i) {
      LogitsRow& s = state_[static_cast<size_t>(i)];
      const int64_t token = rows_[static_cast<size_t>(begin_ + i)];
      const double lse = static_cast<double>(s.max) + std::log(s.sum);
      s.lse = static_cast<float>(lse);
      const double weight = a_.weights == nullptr ? 1.0 : a_.weights[token];
      const double loss = weight * (lse - static_cast<double>(s.target_logit));
      result_.loss_sum += loss;
      result_.weight_sum += weight;
      result_.labelled += 1;
      result_.correct += s.best == Target(i) ? 1 : 0;
      if (a_.token_loss != nullptr) a_.token_loss[token] = static_cast<float>(loss);
    }
  }

  // Gradients of the hidden rows: scale (o / sum - slope W_target).
  void FinishGradients() {
    ctx_.ParallelFor(n_, 16, [&](int64_t begin, int64_t end, int worker) {
      auto* target_row =
          static_cast<float*>(ctx_.Scratch(worker, static_cast<size_t>(h_ * kFloat)));
      for (int64_t i = begin; i < end; ++i) {
        const LogitsRow& s = state_[static_cast<size_t>(i)];
        const int64_t token = rows_[static_cast<size_t>(begin_ + i)];
        const float scale = scale_[static_cast<size_t>(i)];
        const float inverse = static_cast<float>(static_cast<double>(scale) / s.sum);
        float slope = scale;
        if (a_.softcap > 0) {
          const float c = s.target_logit / a_.softcap;
          slope *= 1.0f - c * c;
        }
        if (a_.dhidden != nullptr) {
          float* dx = a_.dhidden + token * h_;
          if (a_.source == nullptr) {
            WeightRowsToF32(a_.head, Target(i), 1, target_row);
          } else {  // KeepTargetRows
            std::copy_n(dx, h_, target_row);
            std::fill_n(dx, h_, 0.0f);
          }
          t_.axpy(h_, inverse, DxRow(i), dx);
          t_.axpy(h_, -slope, target_row, dx);
        }
        if (r_ > 0) {
          float* dxb = dxb_.data() + token * r_;
          t_.axpy(r_, inverse, DxbRow(i), dxb);
          t_.axpy(r_, -slope, a_.lora_b + Target(i) * r_, dxb);
        }
      }
    });
  }

  // dhead += dz^T hidden, dlora_b += dz^T (lora_scale hidden A^T): logits once more, now tile by
  // tile, so that every row of the head belongs to one task. Blocks that the first sweep found to
  // be negligible, and without a target, are not computed again.
  bool SecondSweep() {
    const std::vector<int64_t> blocks = Blocks();
    for (auto first = blocks.rbegin(); first != blocks.rend(); ++first) {
      const int64_t begin = *first / kHeadTile, end = CeilDiv(BlockEnd(*first), kHeadTile);
      if (a_.source != nullptr) {
        bool any = false;
        for (int64_t tile = begin; tile < end && !any; ++tile) {
          for (int64_t row = 0; row < n_ && !any; row += group_) any = InHeadGradient(tile, row);
        }
        if (!any) continue;
        if (!Hold(*first)) return false;
      }
      HeadGradient(begin, end);
    }
    return true;
  }

  bool InHeadGradient(int64_t tile, int64_t row) const {
    const int64_t first = tile * kHeadTile;
    return !pack_late_ || Matters(tile, row) ||
           HoldsTarget(first, std::min(kHeadTile, vocab_ - first), row);
  }

  // Of the tiles [begin, end).
  void HeadGradient(int64_t begin, int64_t end) {
    const int64_t z_floats = n_ * kHeadTile, w_floats = packer_.logits_floats();
    const int64_t x_floats = RoundUp(h_ + r_, t_.nr) * group_;
    const int64_t total =
        z_floats + w_floats + x_floats + packer_.scratch_floats() + group_ * (h_ + r_);
    ctx_.pool().Run(end - begin, [&](int64_t task, int worker) {
      const int64_t tile = begin + task;
      auto* z = static_cast<float*>(ctx_.Scratch(worker, static_cast<size_t>(total * kFloat)));
      float* w = z + z_floats;
      float* x = w + w_floats;
      float* gathered = x + x_floats;
      float* pack_scratch = gathered + group_ * (h_ + r_);
      const int64_t first = tile * kHeadTile, columns = std::min(kHeadTile, vocab_ - first);
      bool packed = false;
      for (int64_t row = 0; row < n_; row += group_) {
        if (!InHeadGradient(tile, row)) continue;
        if (!packed) packer_.PackLogits(first, columns, pack_scratch, w);
        packed = true;
        dhead_blocks_.fetch_add(1, std::memory_order_relaxed);
        const int64_t rows = std::min(group_, n_ - row);
        packer_.Logits(row, rows, padded_, x_, rounded_, columns, w, z, kHeadTile);
        t_.logits_vjp(rows, columns, z, kHeadTile, a_.softcap, first, targets_.data() + row,
                      state_.data() + row, scale_.data() + row);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t token = rows_[static_cast<size_t>(begin_ + row + i)];
          if (a_.dhead != nullptr) std::copy_n(a_.hidden + token * h_, h_, gathered + i * h_);
          if (r_ > 0) std::copy_n(ha_.data() + token * r_, r_, gathered + rows * h_ + i * r_);
        }
        if (a_.dhead != nullptr) {
          t_.pack_b(DType::kF32, gathered, h_, h_, rows, x);
          t_.multiply(columns, h_, rows, ALayout::kKMajor, z, kHeadTile, {x, rows * t_.nr, t_.nr},
                      1.0f, a_.dhead + first * h_, h_, true);
        }
        if (r_ > 0 && a_.dlora_b != nullptr) {
          t_.pack_b(DType::kF32, gathered + rows * h_, r_, r_, rows, x);
          t_.multiply(columns, r_, rows, ALayout::kKMajor, z, kHeadTile, {x, rows * t_.nr, t_.nr},
                      1.0f, a_.dlora_b + first * r_, r_, true);
        }
      }
    });
  }

  // dhidden += lora_scale dxb A; dlora_a += lora_scale dxb^T hidden.
  void FinishLora() {
    if (r_ == 0 || !want_dx_) return;
    if (a_.dhidden != nullptr) {
      MatMulNN(ctx_, a_.tokens, h_, r_, a_.lora_scale, dxb_.data(), r_,
               WeightRef::Dense(a_.lora_a, r_, h_), a_.dhidden, h_, Accumulate::kAdd);
    }
    if (a_.dlora_a != nullptr) {
      MatMulTN(ctx_, r_, h_, a_.tokens, a_.lora_scale, dxb_.data(), r_, a_.hidden, h_, a_.dlora_a,
               h_, Accumulate::kAdd);
    }
  }

  ExecContext& ctx_;
  const HeadLossArgs& a_;
  const KernelTable& t_;
  const int64_t h_, vocab_, r_;
  const int64_t group_;  // rows that are skipped or not together
  const HeadTilePacker packer_;
  const bool backward_, want_dx_;
  const bool pack_late_;  // tiles are packed for the gradient when one is needed, not all before
  const bool want_dhead_;
  HeadLossResult result_;
  std::vector<int64_t> rows_;  // tokens with a label
  FloatBuffer ha_, dxb_;  // [tokens, r]: lora_scale hidden A^T; gradient of (that / lora_scale)
  // Of the current chunk.
  int64_t begin_ = 0, n_ = 0, padded_ = 0, tiles_ = 0, tile_floats_ = 0;
  float *x_ = nullptr, *o_ = nullptr, *packed_ = nullptr;
  QuantizedRows rounded_;  // of the hidden rows, for integer logits
  std::vector<LogitsRow> state_;
  std::vector<int32_t> targets_;
  std::vector<float> scale_;
  int64_t deferred_ = 0;        // tiles
  int64_t tracked_ = 0;         // tiles whose largest logits are kept: deferred ones, or all
  std::vector<float> largest_;  // [tracked, rows] logits
  std::vector<float> limits_;   // of the rows: logits below are negligible
  std::atomic<int64_t> dhidden_blocks_{0}, dhead_blocks_{0};
};

}  // namespace

std::vector<int64_t> HeadLossOrder(ExecContext& ctx, const HeadLossArgs& args) {
  return HeadLossRun(ctx, args).Order();
}

HeadLossResult HeadLoss(ExecContext& ctx, const HeadLossArgs& args) {
  return HeadLossRun(ctx, args).Run();
}

}  // namespace edgewise::kernels
