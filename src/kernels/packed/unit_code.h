// One code of a dense run of units, in plain C++: the specification of the bit planes.
#pragma once

#include <cstdint>
#include <cstring>

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

// All codes of a unit, four columns at a time.
inline void SetUnit(uint8_t* unit, Planes planes, const uint8_t (&codes)[kTileRows][kUnitCols]) {
  int low = 0;
  for (int p = 0; p < planes.count; ++p) {
    const int width = planes.width[p], steps = 8 / width;
    const uint32_t mask = ((1u << width) - 1) * 0x01010101u;
    for (int piece = 0; piece < width; ++piece) {
      for (int64_t r = 0; r < kTileRows; ++r) {
        uint32_t fields = 0;
        for (int s = 0; s < steps; ++s) {
          uint32_t four;
          std::memcpy(&four, codes[r] + 4 * (piece * steps + s), 4);
          fields |= ((four >> low) & mask) << (s * width);
        }
        std::memcpy(unit + piece * 64 + 4 * r, &fields, 4);
      }
    }
    low += width;
    unit += 64 * width;
  }
}

}  // namespace edgewise::kernels
