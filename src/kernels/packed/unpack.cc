// Rows of a packed matrix as fp32.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "kernels/packed/packed_matrix.h"
#include "kernels/packed/tile_reader.h"

namespace edgewise::kernels {
namespace {

// Columns [0, 16) of rows [from, to) of one half unit; `valid` of the columns exist.
void CopyHalf(const float* values, int64_t from, int64_t to, int64_t valid, float* out,
              int64_t ld) {
  for (int64_t r = from; r < to; ++r) {
    std::memcpy(out + (r - from) * ld, values + r * 16, static_cast<size_t>(valid) * sizeof(float));
  }
}

}  // namespace

void PackedMatrix::UnpackRows(int64_t begin, int64_t count, float* out, int64_t ld) const {
  // One rounding per product and sum: every table gives the same bits, so the widest may serve.
  const Int8Table& table = Int8TableFor(SupportedIsas().back());
  const TileReader reader(*this, table);
  const int64_t end = begin + count;
  alignas(64) uint8_t codes[2 * kUnitElements], halves[2][256];
  alignas(64) float scales[32], mins[32], values[kTileRows * 16];
  for (int64_t tile = begin / kTileRows; tile * kTileRows < end; ++tile) {
    const int64_t from = std::max<int64_t>(0, begin - tile * kTileRows);
    const int64_t to = std::min(kTileRows, end - tile * kTileRows);
    float* rows = out + (tile * kTileRows + from - begin) * ld;
    SparseCursor cursor;
    for (int64_t first = 0; first < layout_.units; first += 2) {
      const int64_t units = std::min<int64_t>(2, layout_.units - first);
      int64_t owner[2] = {tile, tile};
      if (format_.structure == Structure::kUnstructured) {
        reader.Read(tile, first, units, &cursor, codes);  // moves the cursor on
      } else {
        reader.ReadPair(tile, first, units, cursor, codes, owner);
      }
      for (int64_t u = 0; u < units; ++u) {
        uint8_t* unit = codes + u * kUnitElements;
        if (owner[u] >= 0) reader.HalfFactors(owner[u], first + u, scales, mins);
        if (reader.signed_codes()) {
          for (int64_t i = 0; i < kUnitElements; ++i) unit[i] ^= 0x80;
        }
        table.transpose(unit, halves[0], halves[1]);
        for (int64_t h = 0; h < 2; ++h) {
          const int64_t col = (first + u) * kUnitCols + 16 * h;
          const int64_t valid = std::min<int64_t>(16, format_.cols - col);
          if (valid <= 0) break;
          if (owner[u] < 0) {
            std::memset(values, 0, sizeof values);
          } else {
            table.dequantize(halves[h], format_.zero(), scales + 16 * h,
                             format_.has_min ? mins + 16 * h : nullptr, values, 16);
          }
          CopyHalf(values, from, to, valid, rows + col, ld);
        }
      }
    }
  }
}

}  // namespace edgewise::kernels
