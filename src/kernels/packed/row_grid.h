// Packed weights on one int8 grid per row, transposed: the right side of integer products over
// rows (gradients).
#pragma once

#include <cstdint>

#include "kernels/packed/tile_reader.h"

namespace edgewise::kernels {

// Whether codes are int8 on one scale per row already.
inline bool HasOneScale(const PackedFormat& f) { return f.group == 0 && !f.has_min; }

class RowGrid {
 public:
  RowGrid(const TileReader& reader, const PackedMatrix& w, const Int8Table& table)
      : reader_(reader), w_(w), f_(w.format()), table_(table) {}

  // What to subtract from the panels' bytes, and whether these are signed.
  int zero() const { return HasOneScale(f_) ? reader_.zero() : table_.signed8 ? 0 : 128; }
  bool signed_codes() const { return HasOneScale(f_) ? reader_.signed_codes() : table_.signed8; }

  // S [16] of a tile: with it every weight of a row is an integer of at most 127 (HasOneScale: its
  // code).
  void Scales(int64_t tile, float* s) const;

  // Panels of units 2 pair .. 2 pair + units - 1 of a tile: [4 steps of rows][16 columns][4 rows],
  // 256 bytes for every 16 columns, at out + i * stride. False: the tile has nothing there. `s`:
  // Scales of the tile; `cursor`: TileReader::ReadPair's.
  bool Fill(int64_t tile, int64_t pair, int64_t units, const SparseCursor& cursor, const float* s,
            uint8_t* out, int64_t stride) const;

 private:
  const TileReader& reader_;
  const PackedMatrix& w_;
  const PackedFormat& f_;
  const Int8Table& table_;
};

}  // namespace edgewise::kernels
