// One code of a dense run of units, in plain C++: the specification of the bit planes.
#pragma once

#include <cstdint>

#include "kernels/packed/format.h"

namespace edgewise::kernels {

// A plane of width p in a unit: 8 / p ... blocks of 64 bytes, each holding 8 / p steps of 4
// columns: byte row * 4 + j of block b has, in bits [p * s, p * s + p), column 4 (b * 8 / p + s) +
// j.
inline int64_t PlaneByte(int width, int64_t row, int64_t col) {
  const int64_t step = col / 4;
  return step / (8 / width) * 64 + row * 4 + col % 4;
}
inline int PlaneShift(int width, int64_t col) {
  return static_cast<int>(col / 4 % (8 / width)) * width;
}

// `tile`: first byte of the tile's units; col may lie in any of them.
inline int DenseCode(const uint8_t* tile, Planes planes, int bits, int64_t row, int64_t col) {
  const uint8_t* unit = tile + col / kUnitCols * 64 * bits;
  const int64_t c = col % kUnitCols;
  int code = 0, low = 0;
  for (int p = 0; p < planes.count; ++p) {
    const int width = planes.width[p];
    const int field = (unit[PlaneByte(width, row, c)] >> PlaneShift(width, c)) & ((1 << width) - 1);
    code |= field << low;
    low += width;
    unit += 64 * width;
  }
  return code;
}

// Sets a code whose bits are still zero.
inline void SetDenseCode(uint8_t* tile, Planes planes, int bits, int64_t row, int64_t col,
                         int code) {
  uint8_t* unit = tile + col / kUnitCols * 64 * bits;
  const int64_t c = col % kUnitCols;
  for (int p = 0; p < planes.count; ++p) {
    const int width = planes.width[p];
    unit[PlaneByte(width, row, c)] |=
        static_cast<uint8_t>((code & ((1 << width) - 1)) << PlaneShift(width, c));
    code >>= width;
    unit += 64 * width;
  }
}

}  // namespace edgewise::kernels
