// A weight matrix W [out, in] in low-bit, possibly sparse form: one contiguous blob that is the
// same in a file and in memory, so that a mapped file is used in place. docs/packed-layouts.md
// draws the bytes; kernels/packed/linear.h computes on them.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

#include "kernels/packed/format.h"
#include "kernels/packed/tiling.h"
#include "kernels/weight.h"
#include "tensor/dtype.h"

namespace edgewise::kernels {

// kHeader checks what is needed to address sections and blocks. For kUnstructured, memory safety of
// the kernels also needs the bitmask to agree with the stored values: kFull counts its bits (and,
// for kNM, checks that positions ascend), which reads those sections. Use kHeader only on bytes
// whose checksum was verified.
enum class Verify { kHeader, kFull };

// Cheap to copy: copies share the bytes. Immutable.
class PackedMatrix {
 public:
  // A view of a blob. `owner` keeps the bytes alive (a mapped file, a buffer); it may be null when
  // the caller does. Any alignment; multiples of 64 are fastest. Error: bytes that are not a packed
  // matrix of exactly this size.
  static Result<PackedMatrix> FromBytes(std::span<const std::byte> bytes,
                                        std::shared_ptr<const void> owner,
                                        Verify verify = Verify::kFull);

  const PackedFormat& format() const { return format_; }
  const PackedLayout& layout() const { return layout_; }
  int64_t rows() const { return format_.rows; }
  int64_t cols() const { return format_.cols; }
  // The blob: header, sections, tail. What is stored in a file.
  std::span<const std::byte> bytes() const { return bytes_; }
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(bytes_.size()) /
           (static_cast<double>(rows()) * static_cast<double>(cols()));
  }
  // How products of many rows with it are cut; changes no result.
  const ProductTiling& tiling() const { return tiling_; }
  void set_tiling(const ProductTiling& tiling) { tiling_ = tiling; }
  WeightRef Ref() const { return {rows(), cols(), DType::kF32, nullptr, 0, this}; }

  // The rows [first, first + count) of a dense matrix as one of their own, on the same bytes; first
  // is a multiple of 16. Products with it are those rows of the whole's, to the bit.
  PackedMatrix Rows(int64_t first, int64_t count) const;

  // out [count, cols] (row stride ld) = rows begin .. begin+count-1 as fp32; elements that are
  // pruned are 0. One thread; linear.h has rows gathered by many.
  void UnpackRows(int64_t begin, int64_t count, float* out, int64_t ld) const;

  // ---- For kernels ----
  const uint8_t* section(int64_t offset) const {
    return reinterpret_cast<const uint8_t*>(bytes_.data()) + offset;
  }
  // First block (kBlock) or 4-byte word of values (kUnstructured: entry tile * planes + plane).
  uint32_t index(int64_t i) const { return Load<uint32_t>(layout_.index + 4 * i); }
  // Number of the i-th stored block within its row of blocks.
  uint16_t block(int64_t i) const { return Load<uint16_t>(layout_.aux + 2 * i); }
  // kUnstructured: bit (row * 4 + k % 4) of word (tile, unit, k / 4 % 8) is column k of the row.
  uint64_t mask(int64_t tile, int64_t unit, int64_t step) const {
    return Load<uint64_t>(layout_.aux + ((tile * layout_.units + unit) * 8 + step) * 8);
  }
  // Dense, kNM: first value byte of a tile. kBlock: pass the block number i as `tile`.
  const uint8_t* values(int64_t tile) const {
    const int64_t units = format_.structure == Structure::kBlock ? format_.block_cols / kUnitCols
                                                                 : layout_.value_units;
    return section(layout_.values + tile * units * 64 * format_.bits);
  }
  // Scales (mins) of groups [first, first + count) for the 16 rows of a tile: out [count][16].
  // kBlock with groups: pass the stored block number as `tile`.
  void LoadScales(int64_t tile, int64_t first, int64_t count, float* out) const {
    LoadFactors(layout_.scales, layout_.scale_subs, tile, first, count, out);
  }
  void LoadMins(int64_t tile, int64_t first, int64_t count, float* out) const {
    LoadFactors(layout_.mins, layout_.min_subs, tile, first, count, out);
  }
  // Codes of units [first, first + count) of a tile: codes [count][8 steps][16 rows][4], byte
  // (row, j) of step t is column 32 unit + 4 t + j; pruned elements are zero(). Plain C++: the
  // specification of the fast unpackers. present [count]: false for units of absent blocks; may be
  // null.
  void DecodeUnits(int64_t tile, int64_t first, int64_t count, uint8_t* codes, bool* present) const;

 private:
  friend class PackWriter;
  template <typename T>
  T Load(int64_t offset) const {
    T v;
    std::memcpy(&v, bytes_.data() + offset, sizeof v);
    return v;
  }
  Status CheckSparse(Verify verify) const;
  void LoadFactors(int64_t factors, int64_t subs, int64_t tile, int64_t first, int64_t count,
                   float* out) const;

  PackedFormat format_;
  PackedLayout layout_;
  ProductTiling tiling_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

// Integers ready to be packed. All arrays row-major, not owned.
struct QuantizedWeights {
  // Signed codes -2^(b-1) .. 2^(b-1)-1 without mins; 0 .. 2^b-1 with mins. [rows, cols].
  const int8_t* q = nullptr;
  // [rows, groups], groups = ceil(cols / group) or 1. Rounded to the format's scale type: use
  // RoundScale before quantising, so that codes are chosen for the scale that is stored.
  const float* scales = nullptr;
  const float* mins = nullptr;    // [rows, groups]; required iff format.has_min
  const uint8_t* keep = nullptr;  // [rows, cols], 0: pruned; null: nothing is pruned
  // ScaleType::kSuper: factors [rows, ceil(cols / 256)] and integers [rows, groups] in place of
  // `scales` and `mins`.
  const float* super_scales = nullptr;
  const float* super_mins = nullptr;
  const int8_t* sub_scales = nullptr;
  const int8_t* sub_mins = nullptr;
};

// The value that a scale becomes when stored (fp16 rounds to nearest even).
float RoundScale(ScaleType type, float scale);

// Packs given integers. What is pruned (keep == 0): kDense, kUnstructured: code 0. kNM: at most N
// kept per M columns, else an error. kBlock: a block is stored when any of it is kept.
// Error: codes out of range, scales that are not finite in the scale type, a bad format.
Result<PackedMatrix> PackFromQuantized(const PackedFormat& format, const QuantizedWeights& w);

// Rounds W [rows, cols] (row stride ld) to the symmetric grid of the format, scale = max |w| /
// (2^(b-1) - 1) per group, and packs it. Without `keep`: kUnstructured and kBlock drop exact zeros,
// kNM keeps the N largest magnitudes. Formats with a min: scale and min from the range of the
// group.
Result<PackedMatrix> Pack(const PackedFormat& format, const float* w, int64_t ld,
                          const uint8_t* keep = nullptr);

}  // namespace edgewise::kernels
