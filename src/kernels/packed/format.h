// The form of a packed weight matrix W [out, in]: what the header of a blob says and where its
// sections lie. docs/packed-layouts.md draws the bytes.
//
// Vocabulary: a *tile* is 16 rows (output channels); a *unit* is 32 columns of a tile, 512
// elements, exactly 64 * bits bytes when dense. A *code* is an unsigned b-bit number; the value of
// an element is scale * (code - zero) + min, with zero = 2^(b-1) when there is no min, else 0.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace edgewise::kernels {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kUnitCols = 32;
inline constexpr int64_t kUnitElements = kTileRows * kUnitCols;
inline constexpr int64_t kSuperGroupCols = 256;  // columns per fp16 factor of ScaleType::kSuper
// Kernels may read this far past the last byte they use; every blob ends in as many zero bytes.
inline constexpr int64_t kBlobTail = 64;

// On disk by value: never renumber.
enum class Structure : uint8_t {
  kDense = 0,
  kUnstructured = 1,  // bitmask + the non-zero codes
  kNM = 2,            // at most N of every M consecutive columns are non-zero; M in {4, 8, 16}
  kBlock = 3,         // blocks of 16 rows x block_cols columns are there or all zero
};

enum class ScaleType : uint8_t {
  kF16 = 0,
  kF32 = 1,
  // fp16 factor per 256 columns times an 8-bit integer per group (K-quants of GGUF). Dense only.
  kSuper = 2,
};

struct PackedFormat {
  int64_t rows = 0;  // out
  int64_t cols = 0;  // in
  int bits = 4;      // 2, 3, 4, 5, 6, 8
  Structure structure = Structure::kDense;
  int group = 0;  // columns per scale: 0 (one scale per row), 16, 32, 64, 128 or 256
  ScaleType scale_type = ScaleType::kF16;
  bool has_min = false;  // an offset per group; dense and block only, not with 8 bits
  int nm_n = 0, nm_m = 0;
  int block_cols = 0;  // kBlock: 32, 64, 128 or 256; a multiple of group
  // How activations are quantised for this layer: columns per scale, 0 (one per token), 32, 64,
  // 128, 256 or 512. A hint for the kernels; it changes no byte of the weights.
  int act_group = 512;

  int zero() const { return has_min ? 0 : 1 << (bits - 1); }
};

// Error: fields out of range or combinations that do not exist.
Status CheckFormat(const PackedFormat& format);

// Planes of a code, widest first: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2 bits.
struct Planes {
  int count;
  int width[2];
};
constexpr Planes PlanesOf(int bits) {
  return bits == 3   ? Planes{2, {2, 1}}
         : bits == 5 ? Planes{2, {4, 1}}
         : bits == 6 ? Planes{2, {4, 2}}
                     : Planes{1, {bits, 0}};
}
constexpr int NmIndexBits(int m) { return m == 4 ? 2 : m == 8 ? 3 : 4; }

// Byte offsets from the start of the blob; every section starts at a multiple of 64.
struct PackedLayout {
  int64_t tiles = 0;
  int64_t units = 0;        // per tile, of the dense matrix: columns are padded to 32
  int64_t value_units = 0;  // per tile, stored: `units`, or those of the compressed columns (kNM)
  int64_t groups = 0;       // scales per row: of a tile, or of one block (kBlock with group > 0)
  int64_t supers = 0;       // kSuper: fp16 factors per row
  int64_t index = 0;        // kUnstructured: u32 [tiles * planes + 1]; kBlock: u32 [tiles + 1]
  int64_t aux = 0;          // kUnstructured: bitmask; kBlock: u16 block numbers; kNM: positions
  int64_t scales = 0, scale_subs = 0;
  int64_t mins = 0, min_subs = 0;
  int64_t values = 0;
  int64_t total = 0;
};

// `count`: kUnstructured: 4-byte words of values; kBlock: blocks that are there; else ignored.
// Error: the sizes overflow.
Result<PackedLayout> ComputeLayout(const PackedFormat& format, int64_t count);

}  // namespace edgewise::kernels
