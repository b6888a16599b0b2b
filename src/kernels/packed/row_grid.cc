#include "kernels/packed/row_grid.h"

#include <algorithm>
#include <cmath>

namespace edgewise::kernels {

void RowGrid::Scales(int64_t tile, float* s) const {
  if (HasOneScale(f_)) return reader_.Scales(tile, 0, 1, s);
  const bool per_block = f_.structure == Structure::kBlock && f_.group > 0;
  const float top = static_cast<float>(f_.has_min ? (1 << f_.bits) - 1 : 1 << (f_.bits - 1));
  constexpr int64_t kAtOnce = 16;  // groups
  float scale[kAtOnce * kTileRows], min[kAtOnce * kTileRows] = {}, most[kTileRows] = {};
  const int64_t first = per_block ? w_.index(tile) : tile;
  const int64_t last = per_block ? w_.index(tile + 1) : tile + 1;
  for (int64_t owner = first; owner < last; ++owner) {
    for (int64_t g = 0; g < w_.layout().groups; g += kAtOnce) {
      const int64_t n = std::min(kAtOnce, w_.layout().groups - g);
      reader_.Scales(owner, g, n, scale);
      if (f_.has_min) reader_.Mins(owner, g, n, min);
      for (int64_t i = 0; i < n * kTileRows; i += kTileRows) {
        for (int64_t r = 0; r < kTileRows; ++r) {
          const float a = std::fabs(min[i + r]), b = std::fabs(scale[i + r] * top + min[i + r]);
          const float c = a > b ? a : b;
          most[r] = c > most[r] ? c : most[r];
        }
      }
    }
  }
  for (int64_t r = 0; r < kTileRows; ++r) s[r] = most[r] / 127.0f;
}

bool RowGrid::Fill(int64_t tile, int64_t pair, int64_t units, const SparseCursor& cursor,
                   const float* s, uint8_t* out, int64_t stride) const {
  alignas(64) uint8_t codes[2 * kUnitElements];
  int64_t owner[2];
  reader_.ReadPair(tile, 2 * pair, units, cursor, codes, owner);
  if (owner[0] < 0 && (units == 1 || owner[1] < 0)) return false;
  alignas(64) float inverse[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) inverse[r] = s[r] > 0 ? 1.0f / s[r] : 0.0f;
  for (int64_t u = 0; u < units; ++u) {
    uint8_t* unit = codes + u * kUnitElements;
    if (!HasOneScale(f_)) {
      alignas(64) float scales[32] = {}, mins[32] = {};
      if (owner[u] >= 0) {
        reader_.HalfFactors(owner[u], 2 * pair + u, scales, mins);
        for (int64_t h = 0; h < 32; h += kTileRows) {
          for (int64_t r = 0; r < kTileRows; ++r) {
            scales[h + r] *= inverse[r];
            mins[h + r] *= inverse[r];
          }
        }
      }
      if (f_.bits == 8 && table_.signed8) {
        for (int64_t i = 0; i < kUnitElements; ++i) unit[i] ^= 0x80;
      }
      table_.requantize(unit, f_.zero(), scales, f_.has_min ? mins : nullptr, unit);
    }
    table_.transpose(unit, out + 2 * u * stride, out + (2 * u + 1) * stride);
  }
  return true;
}

}  // namespace edgewise::kernels
