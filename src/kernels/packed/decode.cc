// Codes of a packed matrix in plain C++: the specification of the fast unpackers.
#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "kernels/packed/packed_matrix.h"
#include "kernels/packed/unit_code.h"

namespace edgewise::kernels {
namespace {

inline uint8_t& At(uint8_t* unit_codes, int64_t row, int64_t col) {
  return unit_codes[col / 4 * 64 + row * 4 + col % 4];
}

void DecodeDense(const uint8_t* tile, const PackedFormat& f, int64_t first, int64_t count,
                 uint8_t* codes) {
  const Planes planes = PlanesOf(f.bits);
  for (int64_t u = 0; u < count; ++u) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      for (int64_t c = 0; c < kUnitCols; ++c) {
        At(codes + u * kUnitElements, r, c) =
            static_cast<uint8_t>(DenseCode(tile, planes, f.bits, r, (first + u) * kUnitCols + c));
      }
    }
  }
}

void DecodeNm(const PackedMatrix& m, int64_t tile, int64_t first, int64_t count, uint8_t* codes) {
  const PackedFormat& f = m.format();
  const PackedLayout& l = m.layout();
  const int ib = NmIndexBits(f.nm_m);
  const Planes planes = PlanesOf(f.bits), index_planes = PlanesOf(ib);
  const uint8_t* values = m.values(tile);
  const uint8_t* positions = m.section(l.aux + tile * l.value_units * 64 * ib);
  std::fill_n(codes, count * kUnitElements, static_cast<uint8_t>(f.zero()));
  const int64_t groups = CeilDiv(f.cols, f.nm_m);
  const int64_t end = std::min(groups, (first + count) * kUnitCols / f.nm_m);
  for (int64_t g = first * kUnitCols / f.nm_m; g < end; ++g) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      for (int n = 0; n < f.nm_n; ++n) {
        const int64_t at = g * f.nm_n + n;
        const int position = DenseCode(positions, index_planes, ib, r, at);
        // Stored relative to zero(), as in the unstructured form: pruned elements are all-zero
        // bits.
        const int code = DenseCode(values, planes, f.bits, r, at) ^ f.zero();
        const int64_t col = g * f.nm_m + position - first * kUnitCols;
        At(codes + col / kUnitCols * kUnitElements, r, col % kUnitCols) =
            static_cast<uint8_t>(code);
      }
    }
  }
}

void DecodeUnstructured(const PackedMatrix& m, int64_t tile, int64_t first, int64_t count,
                        uint8_t* codes) {
  const PackedFormat& f = m.format();
  const Planes planes = PlanesOf(f.bits);
  std::fill_n(codes, count * kUnitElements, static_cast<uint8_t>(f.zero()));
  int64_t kept[8] = {};  // so far, per step modulo 8
  for (int64_t u = 0; u < first; ++u) {
    for (int s = 0; s < 8; ++s) kept[s] += std::popcount(m.mask(tile, u, s));
  }
  int64_t cursor[2][8] = {};
  for (int p = 0; p < planes.count; ++p) {
    for (int s = 0; s < 8; ++s) cursor[p][s % (8 / planes.width[p])] += kept[s];
  }
  const uint8_t* values = m.section(m.layout().values);
  for (int64_t u = 0; u < count; ++u) {
    for (int s = 0; s < 8; ++s) {
      const uint64_t mask = m.mask(tile, first + u, s);
      for (int i = 0; i < 64; ++i) {
        if (((mask >> i) & 1) == 0) continue;
        int code = 0, low = 0;
        for (int p = 0; p < planes.count; ++p) {
          const int width = planes.width[p], stream = s % (8 / width);
          const int64_t plane = int64_t{4} * m.index(tile * planes.count + p);
          const int field =
              (values[plane + cursor[p][stream]++] >> (stream * width)) & ((1 << width) - 1);
          code |= field << low;
          low += width;
        }
        codes[u * kUnitElements + s * 64 + i] = static_cast<uint8_t>(code ^ f.zero());
      }
    }
  }
}

void DecodeBlocks(const PackedMatrix& m, int64_t tile, int64_t first, int64_t count, uint8_t* codes,
                  bool* present) {
  const PackedFormat& f = m.format();
  const int64_t block_units = f.block_cols / kUnitCols;
  std::fill_n(codes, count * kUnitElements, static_cast<uint8_t>(f.zero()));
  for (int64_t i = m.index(tile); i < m.index(tile + 1); ++i) {
    for (int64_t b = 0; b < block_units; ++b) {
      const int64_t unit = m.block(i) * block_units + b - first;
      if (unit < 0 || unit >= count) continue;
      DecodeDense(m.values(i), f, b, 1, codes + unit * kUnitElements);
      if (present != nullptr) present[unit] = true;
    }
  }
}

}  // namespace

void PackedMatrix::DecodeUnits(int64_t tile, int64_t first, int64_t count, uint8_t* codes,
                               bool* present) const {
  if (present != nullptr) std::fill_n(present, count, format_.structure != Structure::kBlock);
  switch (format_.structure) {
    case Structure::kDense:
      return DecodeDense(values(tile), format_, first, count, codes);
    case Structure::kUnstructured:
      return DecodeUnstructured(*this, tile, first, count, codes);
    case Structure::kNM:
      return DecodeNm(*this, tile, first, count, codes);
    case Structure::kBlock:
      return DecodeBlocks(*this, tile, first, count, codes, present);
  }
}

}  // namespace edgewise::kernels
