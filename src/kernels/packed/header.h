// First 64 bytes of a blob, little-endian.
#pragma once

#include <cstdint>

#include "kernels/packed/format.h"

namespace edgewise::kernels {

struct PackedHeader {
  char magic[4];  // "EWPK"
  uint16_t version;
  uint8_t bits;
  uint8_t structure;
  uint64_t rows;
  uint64_t cols;
  uint16_t group;
  uint16_t act_group;
  uint8_t scale_type;
  uint8_t has_min;
  uint8_t nm_n;
  uint8_t nm_m;
  uint16_t block_cols;
  uint8_t reserved[6];
  uint64_t count;  // PackedLayout: words of values or blocks, else 0
  uint64_t total;  // bytes of the blob
  uint8_t reserved2[8];
};
static_assert(sizeof(PackedHeader) == 64);

inline constexpr char kPackedMagic[4] = {'E', 'W', 'P', 'K'};
inline constexpr uint16_t kPackedVersion = 1;

// What the header says, unchecked (ComputeLayout checks).
inline PackedFormat FormatOf(const PackedHeader& h) {
  PackedFormat f;
  f.rows = static_cast<int64_t>(h.rows);
  f.cols = static_cast<int64_t>(h.cols);
  f.bits = h.bits;
  f.structure = static_cast<Structure>(h.structure);
  f.group = h.group;
  f.scale_type = static_cast<ScaleType>(h.scale_type);
  f.has_min = h.has_min != 0;
  f.nm_n = h.nm_n;
  f.nm_m = h.nm_m;
  f.block_cols = h.block_cols;
  f.act_group = h.act_group;
  return f;
}

}  // namespace edgewise::kernels
