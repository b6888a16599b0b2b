// The LM head in tiles of vocabulary, packed for both products of the head loss: logits
// (hidden times head^T) and the gradient of the hidden state (probabilities times head). A dense
// head is multiplied in fp32. A packed one gives the logits of PackedForward, by integer products;
// its gradient is fp32 or, when asked for, integer as well.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/checked.h"
#include "kernels/gemm_driver.h"
#include "kernels/linear.h"
#include "kernels/packed/block_product.h"
#include "kernels/weight_rows.h"

namespace edgewise::kernels {

inline constexpr int64_t kHeadTile = 128;  // vocabulary entries

// A [rows, width] matrix next to an optional [rows, r] one (the low-rank part), in blocks of k as
// the matrix product takes them.
struct HeadBlocks {
  int64_t width = 0, r = 0;

  int64_t count() const { return CeilDiv(width, kGemmKBlock) + (r > 0 ? 1 : 0); }
  int64_t size(int64_t i) const {
    const int64_t whole = CeilDiv(width, kGemmKBlock);
    return i == whole ? r : std::min(kGemmKBlock, width - i * kGemmKBlock);
  }
  // k steps before block i.
  int64_t start(int64_t i) const { return std::min(i * kGemmKBlock, width); }
  int64_t total() const { return width + r; }
};

// One tile: head rows [first, first + columns) and, beside them, those of the low-rank factor
// b [vocab, r].
class HeadTilePacker {
 public:
  HeadTilePacker(ExecContext& ctx, const WeightRef& head, const float* b, int64_t r,
                 BackwardMode mode)
      : t_(TableFor(ctx.isa())), head_(head), b_(b), blocks_{head.cols, r} {
    if (head.packed == nullptr || !BlockProduct::CanForward(*head.packed)) return;
    integer_.emplace(*head.packed, Int8TableFor(ctx.isa()));
    integer_gradient_ = mode == BackwardMode::kInteger && BlockProduct::CanBackward(*head.packed);
  }

  // Null: logits are fp32 products of packed hidden rows; else of rows rounded by its Plan.
  const BlockProduct* integer() const { return integer_ ? &*integer_ : nullptr; }

  const HeadBlocks& blocks() const { return blocks_; }
  int64_t padded_tile() const { return RoundUp(kHeadTile, t_.nr); }
  // Floats of one tile packed for logits, and for the gradient.
  // (Whole cache lines.)
  int64_t logits_floats() const { return RoundUp(wide_floats() + blocks_.r * padded_tile(), 16); }
  int64_t gradient_floats() const {
    return RoundUp(wide_gradient_floats() + RoundUp(blocks_.r, t_.nr) * kHeadTile, 16);
  }
  // Scratch of PackLogits and PackGradient in floats: rows of a head that is not dense.
  int64_t scratch_floats() const {
    const bool unpacks = head_.packed != nullptr && !(integer_ && integer_gradient_);
    return unpacks ? kHeadTile * head_.cols : 0;
  }

  // out is 64-byte aligned.
  void PackLogits(int64_t first, int64_t columns, float* scratch, float* out) const {
    const int64_t h = blocks_.width, r = blocks_.r;
    if (integer_) {
      integer_->PackForward(first, columns, reinterpret_cast<uint8_t*>(out));
    } else {
      const Rows rows = ReadRows(first, columns, scratch);
      for (int64_t i = 0; i < CeilDiv(h, kGemmKBlock); ++i) {
        const int64_t k0 = blocks_.start(i);
        t_.pack_b_transposed(rows.dtype, rows.At(k0), rows.ld, columns, blocks_.size(i),
                             out + k0 * padded_tile());
      }
    }
    if (r > 0) {
      t_.pack_b_transposed(DType::kF32, b_ + first * r, r, columns, r, out + wide_floats());
    }
  }

  void PackGradient(int64_t first, int64_t columns, float* scratch, float* out) const {
    const int64_t h = blocks_.width, r = blocks_.r;
    if (integer_gradient_) {
      integer_->PackBackward(first, columns, reinterpret_cast<uint8_t*>(out));
    } else {
      const Rows rows = ReadRows(first, columns, scratch);
      t_.pack_b(rows.dtype, rows.At(0), rows.ld, h, columns, out);
    }
    if (r > 0) {
      t_.pack_b(DType::kF32, b_ + first * r, r, r, columns, out + wide_gradient_floats());
    }
  }

  // z [rows, columns] = x tile^T, from row `row` of the hidden rows on. x: these in fp32 panels for
  // each block of k, all of them `padded_rows` high (the low-rank block alone when `rounded`, the
  // same rows in int8, is what integer() wants).
  void Logits(int64_t row, int64_t rows, int64_t padded_rows, const float* x,
              const QuantizedRows& rounded, int64_t columns, const float* packed, float* z,
              int64_t ldz) const {
    int64_t i = 0;
    if (integer_) {
      const auto* panel = reinterpret_cast<const uint8_t*>(packed);
      integer_->Forward(rounded, row, rows, columns, panel, z, ldz);
      i = CeilDiv(blocks_.width, kGemmKBlock);
    }
    for (; i < blocks_.count(); ++i) {
      const int64_t k0 = blocks_.start(i), kk = blocks_.size(i);
      const float* panels = packed + (k0 == blocks_.width ? wide_floats() : k0 * padded_tile());
      t_.multiply(rows, columns, kk, ALayout::kPanels, x + padded_rows * x_start(i) + row * kk,
                  kk * t_.mr, {panels, kk * t_.nr, t_.nr}, 1.0f, z, ldz, i > 0);
    }
  }
  // Where block i starts in x, and how wide all are.
  int64_t x_start(int64_t i) const { return integer_ ? 0 : blocks_.start(i); }
  int64_t x_width() const { return integer_ ? blocks_.r : blocks_.total(); }
  int64_t first_block() const { return integer_ ? CeilDiv(blocks_.width, kGemmKBlock) : 0; }

  // o [rows, width] += p [rows, columns] tile, ob [rows, r] += p times the low-rank rows.
  void AddGradient(int64_t rows, int64_t columns, const float* p, int64_t ldp, const float* packed,
                   float* o, float* ob) const {
    if (integer_gradient_) {
      const auto* panel = reinterpret_cast<const uint8_t*>(packed);
      integer_->Backward(rows, columns, p, ldp, panel, o, blocks_.width);
    } else {
      t_.multiply(rows, blocks_.width, columns, ALayout::kRowMajor, p, ldp,
                  {packed, columns * t_.nr, t_.nr}, 1.0f, o, blocks_.width, true);
    }
    if (blocks_.r > 0) {
      t_.multiply(rows, blocks_.r, columns, ALayout::kRowMajor, p, ldp,
                  {packed + wide_gradient_floats(), columns * t_.nr, t_.nr}, 1.0f, ob, blocks_.r,
                  true);
    }
  }

 private:
  // Floats of the head's own part of a tile; whole cache lines.
  int64_t wide_floats() const {
    return integer_ ? RoundUp(integer_->forward_bytes(), 64) / 4 : blocks_.width * padded_tile();
  }
  int64_t wide_gradient_floats() const {
    return integer_gradient_ ? RoundUp(integer_->backward_bytes(), 64) / 4
                             : RoundUp(blocks_.width, t_.nr) * kHeadTile;
  }
  struct Rows {
    DType dtype;
    int64_t ld;
    const unsigned char* data;
    const void* At(int64_t column) const {
      return data + column * static_cast<int64_t>(DTypeBytes(dtype));
    }
  };
  Rows ReadRows(int64_t first, int64_t columns, float* scratch) const {
    if (head_.packed != nullptr) {
      WeightRowsToF32(head_, first, columns, scratch);
      return {DType::kF32, head_.cols, reinterpret_cast<const unsigned char*>(scratch)};
    }
    return {head_.dtype, head_.ld,
            static_cast<const unsigned char*>(head_.data) +
                first * head_.ld * static_cast<int64_t>(DTypeBytes(head_.dtype))};
  }

  const KernelTable& t_;
  const WeightRef& head_;
  const float* b_;
  HeadBlocks blocks_;
  std::optional<BlockProduct> integer_;
  bool integer_gradient_ = false;
};

}  // namespace edgewise::kernels
