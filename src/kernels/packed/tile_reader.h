// Codes of tiles through the functions of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/packed/int8_table.h"
#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {

// Units decoded at once: 512 columns.
inline constexpr int64_t kChunkUnits = kMaxSegmentCols / kUnitCols;

class TileReader {
 public:
  TileReader(const PackedMatrix& w, const Int8Table& table) : w_(w), table_(table) {}

  // What to subtract from the bytes this writes.
  int zero() const {
    return w_.format().bits == 8 ? (table_.signed8 ? 0 : 128) : w_.format().zero();
  }
  bool signed_codes() const { return w_.format().bits == 8 && table_.signed8; }

  // Units [first, first + count), count <= kChunkUnits, of a tile that is not kBlock; first is
  // even. kUnstructured: *cursor is that of `first` and moves on.
  void Read(int64_t tile, int64_t first, int64_t count, SparseCursor* cursor, uint8_t* codes) const;

  // Cursors of a tile at every second unit: out [ceil(units / 2)]. kUnstructured only.
  void Cursors(int64_t tile, SparseCursor* out) const;

  // The stored block that holds the unit, or -1. kBlock only.
  int64_t FindBlock(int64_t tile, int64_t unit) const;

  // Units [first, first + count) of a pair (count 1 or 2) of any structure: codes, and per unit the
  // factors' owner (tile or stored block; -1: the block is absent, codes are then zero()).
  void ReadPair(int64_t tile, int64_t first, int64_t count, SparseCursor cursor, uint8_t* codes,
                int64_t owner[2]) const;

  // Index of the scale of a column within LoadScales(owner).
  int64_t GroupOf(int64_t col) const {
    const PackedFormat& f = w_.format();
    if (f.group == 0) return 0;
    return (f.structure == Structure::kBlock ? col % f.block_cols : col) / f.group;
  }

  // Asks for `count` scales from an owner's first on; those of the next tile are needed all at
  // once.
  void Prefetch(int64_t owner, int64_t count) const;
  void Scales(int64_t owner, int64_t first, int64_t count, float* out) const;
  // The factors of the two halves (16 columns each) of a unit: scales and mins [2][16]; mins only
  // where the format has them.
  void HalfFactors(int64_t owner, int64_t unit, float* scales, float* mins) const;
  void Mins(int64_t owner, int64_t first, int64_t count, float* out) const;

 private:
  void Factors(int64_t factors, int64_t subs, int64_t owner, int64_t first, int64_t count,
               float* out) const;
  void ReadNm(int64_t tile, int64_t first, int64_t count, uint8_t* codes) const;
  const PackedMatrix& w_;
  const Int8Table& table_;
};

}  // namespace edgewise::kernels
