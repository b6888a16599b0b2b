#include "kernels/packed/row_grid.h"

#include <algorithm>
#include <cmath>

namespace edgewise::kernels {

void RowGrid::Scales(int64_t tile, float* s) const {
  if (HasOneScale(f_)) return reader_.Scales(tile, 0, 1, s);
  const bool per_block = f_.structure == Structure::kBlock && f_.group > 0;
  const float top = static_cast<float>(f_.has_min ? (1 << f_.bits) - 1 : 1 << (f_.bits - 1));
  float scale[kTileRows], min[kTileRows] = {};
  std::fill_n(s, kTileRows, 0.0f);
  const int64_t first = per_block ? w_.index(tile) : tile;
  const int64_t last = per_block ? w_.index(tile + 1) : tile + 1;
  for (int64_t owner = first; owner < last; ++owner) {
    for (int64_t g = 0; g < w_.layout().groups; ++g) {
      reader_.Scales(owner, g, 1, scale);
      if (f_.has_min) reader_.Mins(owner, g, 1, min);
      for (int64_t r = 0; r < kTileRows; ++r) {
        const float a = std::fabs(min[r]), b = std::fabs(scale[r] * top + min[r]);
        s[r] = std::max({s[r], a, b});
      }
    }
  }
  for (int64_t r = 0; r < kTileRows; ++r) s[r] /= 127.0f;
}

bool RowGrid::Fill(int64_t tile, int64_t pair, int64_t units, const SparseCursor& cursor,
                   const float* s, uint8_t* out, int64_t stride) const {
  alignas(64) uint8_t codes[2 * kUnitElements];
  int64_t owner[2];
  reader_.ReadPair(tile, 2 * pair, units, cursor, codes, owner);
  if (owner[0] < 0 && (units == 1 || owner[1] < 0)) return false;
  for (int64_t u = 0; u < units; ++u) {
    uint8_t* unit = codes + u * kUnitElements;
    if (!HasOneScale(f_)) {
      alignas(64) float scales[32] = {}, mins[32] = {};
      if (owner[u] >= 0) {
        reader_.HalfFactors(owner[u], 2 * pair + u, scales, mins);
        for (int64_t i = 0; i < 32; ++i) {
          const float scale = s[i % kTileRows];
          const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
          scales[i] *= inverse;
          mins[i] *= inverse;
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
