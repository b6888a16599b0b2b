// What the two ways of multiplying by a packed matrix share: tile by tile for many rows
// (forward.cc), straight from the packed form for one (row_forward.h). Internal.
#pragma once

#include <algorithm>

#include "base/checked.h"
#include "kernels/packed/activations.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/tile_reader.h"

namespace edgewise::kernels {

// A panel holds one chunk, or all that is left when that is little more.
constexpr int64_t kPanelUnits = kChunkUnits + 4;
constexpr int64_t kPanelBytes = kPanelUnits * kUnitElements;  // of one tile
constexpr int64_t kMaxGroups = kPanelUnits * kUnitCols / 16;  // scales of a panel, per row
constexpr int64_t kMaxTiles = 4;
// Up to here tiles are read one by one, in the order of memory.
constexpr int64_t kFewRows = kMaxProductRows;

struct Work {
  uint8_t* panel;
  float* scales;  // [tiles][kMaxGroups][16]
  float* mins;
  float* c;  // [rows][16 tiles]
  Segment* segments;
  Run* runs;
  float* low_rank;

  static Work Take(ExecContext& ctx, int worker, int64_t tiles, int64_t rows,
                   int64_t low_rank_floats) {
    const int64_t factors = tiles * kMaxGroups * kTileRows * 4;
    const int64_t c_bytes = rows * tiles * kTileRows * 4;
    const int64_t list = kMaxGroups * 16;
    auto* at = static_cast<uint8_t*>(
        ctx.Scratch(worker, static_cast<size_t>(tiles * kPanelBytes + 2 * factors + c_bytes +
                                                2 * list + low_rank_floats * 4)));
    Work w;
    const auto take = [&](int64_t bytes) {
      uint8_t* here = at;
      at += bytes;
      return here;
    };
    w.panel = take(tiles * kPanelBytes);
    w.scales = reinterpret_cast<float*>(take(factors));
    w.mins = reinterpret_cast<float*>(take(factors));
    w.c = reinterpret_cast<float*>(take(c_bytes));
    w.segments = reinterpret_cast<Segment*>(take(list));
    w.runs = reinterpret_cast<Run*>(take(list));
    w.low_rank = reinterpret_cast<float*>(take(low_rank_floats * 4));
    return w;
  }
};

struct Call {
  const PackedMatrix& w;
  const Int8Table& table;
  TileReader reader;
  QuantizedRows x;
  // Of x, for the matrix's own segments; null: none.
  const int32_t* corrections;
  int64_t corrections_stride;
  int64_t segment_cols;
  int64_t act_group;  // 0: per token
  const float* bias;
  float* y;
  int64_t ldy;
  RowRange range;
  bool add;
  const LowRank& low_rank;
  const KernelTable& dense;

  // Sums are the results as they are: rows that are added to are what they start from.
  bool straight() const { return x.grouped && bias == nullptr; }
};

// Segments of columns [col, col + cols), at most a panel, appended to *n. `group0`: number of the
// scale group that `col` starts.
inline void AddSegments(const Call& call, int64_t col, int64_t cols, int64_t group0, Work* work,
                        int64_t* n) {
  const PackedFormat& f = call.w.format();
  for (int64_t c = 0; c < cols; c += call.segment_cols) {
    const int64_t steps = std::min(call.segment_cols, cols - c) / 4;
    work->runs[*n] = {static_cast<int32_t>((col + c) / 4), static_cast<int32_t>(steps)};
    Segment& s = work->segments[*n];
    s.first_run = static_cast<int32_t>(*n);
    s.runs = 1;
    s.weight_group = static_cast<int32_t>(f.group == 0 ? 0 : group0 + c / f.group);
    s.act_group = static_cast<int32_t>(call.act_group == 0 ? 0 : (col + c) / call.act_group);
    ++*n;
  }
}

// Whether tiles [tile, tile + tiles) have all their columns in Y.
inline bool WholeTiles(const Call& call, int64_t tile, int64_t tiles) {
  return (tile + tiles) * kTileRows <= call.range.end;
}

// The end of a task's rows that did not go straight to Y: scales, bias, and their place.
inline void Finish(const Call& call, const Work& work, int64_t tile, int64_t tiles, int64_t row0,
                   int64_t rows) {
  const int64_t col = tile * kTileRows - call.range.begin;
  const int64_t n = std::min(tiles * kTileRows, call.range.end - tile * kTileRows);
  for (int64_t i = 0; i < rows; ++i) {
    const float scale = call.x.grouped ? 1.0f : call.x.scales[row0 + i];
    call.table.finish_row(n, work.c + i * tiles * kTileRows, scale,
                          call.bias == nullptr ? nullptr : call.bias + col,
                          call.add && !call.straight(), call.y + (row0 + i) * call.ldy + col);
  }
}

}  // namespace edgewise::kernels
