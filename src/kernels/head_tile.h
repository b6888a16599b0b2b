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
  // Scratch of PackLogits and PackGradient in floats: rows of a head that is not dense.
  int64_t scratch_floats() const { return head_.packed == nullptr ? 0 : kHeadTile * head_.cols; }

  void PackLogits(int64_t first, int64_t columns, float* scratch, float* out) const {
    const int64_t h = blocks_.width, r = blocks_.r;
    const Rows rows = ReadRows(first, columns, scratch);
    for (int64_t i = 0; i < CeilDiv(h, kGemmKBlock); ++i) {
      const int64_t k0 = blocks_.start(i);
      t_.pack_b_transposed(rows.dtype, rows.At(k0), rows.ld, columns, blocks_.size(i),
                           out + k0 * padded_tile());
    }
    if (r > 0) {
      t_.pack_b_transposed(DType::kF32, b_ + first * r, r, columns, r, out + h * padded_tile());
    }
  }

  void PackGradient(int64_t first, int64_t columns, float* scratch, float* out) const {
    const int64_t h = blocks_.width, r = blocks_.r;
    const Rows rows = ReadRows(first, columns, scratch);
    t_.pack_b(rows.dtype, rows.At(0), rows.ld, h, columns, out);
    if (r > 0) {
      t_.pack_b(DType::kF32, b_ + first * r, r, r, columns, out + RoundUp(h, t_.nr) * kHeadTile);
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
};

}  // namespace edgewise::kernels
