// First 64 bytes of a blob, little-endian.
#pragma once

#include <cstdint>

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

}  // namespace edgewise::kernels
