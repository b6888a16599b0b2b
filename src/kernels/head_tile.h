// The LM head in tiles of vocabulary, packed for both products of the head loss: logits
// (hidden times head^T) and the gradient of the hidden state (probabilities times head).
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/checked.h"
#include "kernels/gemm_driver.h"
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
  HeadTilePacker(const KernelTable& t, const WeightRef& head, const float* b, int64_t r)
      : t_(t), head_(head), b_(b), blocks_{head.cols, r} {}

  const HeadBlocks& blocks() const { return blocks_; }
  int64_t padded_tile() const { return RoundUp(kHeadTile, t_.nr); }
  // Floats of one tile packed for logits, and for the gradient.
  int64_t logits_floats() const { return blocks_.total() * padded_tile(); }
  int64_t gradient_floats() const {
    return (RoundUp(blocks_.width, t_.nr) + RoundUp(blocks_.r, t_.nr)) * kHeadTile;
  }
  // Scratch of Pack in floats: rows of a head that is not dense.
  int64_t scratch_floats() const { return head_.packed == nullptr ? 0 : kHeadTile * head_.cols; }

  // gradient may be null.
  void Pack(int64_t first, int64_t columns, float* scratch, float* logits, float* gradient) const {
    const int64_t h = blocks_.width, r = blocks_.r;
    DType dtype = head_.dtype;
    int64_t ld = head_.ld;
    const unsigned char* rows = nullptr;
    if (head_.packed != nullptr) {
      WeightRowsToF32(head_, first, columns, scratch);
      dtype = DType::kF32;
      ld = h;
      rows = reinterpret_cast<const unsigned char*>(scratch);
    } else {
      rows = static_cast<const unsigned char*>(head_.data) +
             first * ld * static_cast<int64_t>(DTypeBytes(dtype));
    }
    for (int64_t i = 0; i < CeilDiv(h, kGemmKBlock); ++i) {
      const int64_t k0 = blocks_.start(i);
      t_.pack_b_transposed(dtype, rows + k0 * static_cast<int64_t>(DTypeBytes(dtype)), ld, columns,
                           blocks_.size(i), logits + k0 * padded_tile());
    }
    if (r > 0) {
      t_.pack_b_transposed(DType::kF32, b_ + first * r, r, columns, r, logits + h * padded_tile());
    }
    if (gradient == nullptr) return;
    t_.pack_b(dtype, rows, ld, h, columns, gradient);
    if (r > 0) {
      t_.pack_b(DType::kF32, b_ + first * r, r, r, columns,
                gradient + RoundUp(h, t_.nr) * kHeadTile);
    }
  }

  // z [rows, columns] = x tile^T. x: rows of PackHidden's result, all of them `padded_rows` high.
  void Logits(int64_t row, int64_t rows, int64_t padded_rows, const float* x, int64_t columns,
              const float* packed, float* z, int64_t ldz) const {
    for (int64_t i = 0; i < blocks_.count(); ++i) {
      const int64_t k0 = blocks_.start(i), kk = blocks_.size(i);
      t_.multiply(rows, columns, kk, ALayout::kPanels, x + padded_rows * k0 + row * kk, kk * t_.mr,
                  {packed + k0 * padded_tile(), kk * t_.nr, t_.nr}, 1.0f, z, ldz, i > 0);
    }
  }

  // o [rows, width] += p [rows, columns] tile, ob [rows, r] += p times the low-rank rows.
  void AddGradient(int64_t rows, int64_t columns, const float* p, int64_t ldp, const float* packed,
                   float* o, float* ob) const {
    t_.multiply(rows, blocks_.width, columns, ALayout::kRowMajor, p, ldp,
                {packed, columns * t_.nr, t_.nr}, 1.0f, o, blocks_.width, true);
    if (blocks_.r > 0) {
      t_.multiply(rows, blocks_.r, columns, ALayout::kRowMajor, p, ldp,
                  {packed + RoundUp(blocks_.width, t_.nr) * kHeadTile, columns * t_.nr, t_.nr},
                  1.0f, ob, blocks_.r, true);
    }
  }

 private:
  const KernelTable& t_;
  const WeightRef& head_;
  const float* b_;
  HeadBlocks blocks_;
};

}  // namespace edgewise::kernels
