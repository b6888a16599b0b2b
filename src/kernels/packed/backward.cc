// dX = dY W on packed weights: fp32 panels (exact) or int8 dot products (integer).
#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/checked.h"
#include "kernels/gemm_driver.h"
#include "kernels/packed/activations.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/row_grid.h"
#include "kernels/packed/task_rows.h"
#include "kernels/packed/tile_reader.h"

namespace edgewise::kernels {
namespace {

// Two units: the columns of dX that one panel of the integer way covers.
constexpr int64_t kPairCols = 2 * kUnitCols;
constexpr int64_t kChunkTiles = kMaxSegmentCols / kTileRows;   // tiles per integer sum
constexpr int64_t kPanelStride = kMaxSegmentCols * kTileRows;  // bytes of one 16-column panel
constexpr int64_t kGradientGroup = 128;                        // outputs per scale of dY

AlignedBuffer AllCursors(ExecContext& ctx, const TileReader& reader, const PackedMatrix& w,
                         RowRange range) {
  if (w.format().structure != Structure::kUnstructured) return {};
  const int64_t pairs = CeilDiv(w.layout().units, 2);
  const int64_t tile0 = range.begin / kTileRows;
  const int64_t tiles = CeilDiv(range.end, kTileRows) - tile0;
  AlignedBuffer cursors(static_cast<size_t>(tiles * pairs) * sizeof(SparseCursor));
  ctx.ParallelFor(tiles, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      reader.Cursors(tile0 + t, cursors.as<SparseCursor>() + t * pairs);
    }
  });
  return cursors;
}

SparseCursor CursorAt(const AlignedBuffer& cursors, const PackedMatrix& w, int64_t tile,
                      int64_t pair) {
  if (cursors.size() == 0) return {};
  return cursors.as<SparseCursor>()[tile * CeilDiv(w.layout().units, 2) + pair];
}

class IntegerBackward {
 public:
  IntegerBackward(ExecContext& ctx, const PackedMatrix& w, RowRange range)
      : w_(w),
        f_(w.format()),
        table_(Int8TableFor(ctx.isa())),
        reader_(w, table_),
        grid_(reader_, w, table_),
        tile0_(range.begin / kTileRows),
        tiles_(CeilDiv(range.end, kTileRows) - tile0_),
        pairs_(CeilDiv(f_.cols, kPairCols)),
        cursors_(AllCursors(ctx, reader_, w, range)) {}

  void Compute(ExecContext& ctx, int64_t m, const float* dy, int64_t lddy, RowRange range,
               float* dx, int64_t lddx, Accumulate acc, const LinearBackwardOptions& options,
               const LowRank& low_rank) {
    const int64_t outs = range.end - range.begin;
    QuantizePlan plan = QuantizePlan::Make(m, outs, kGradientGroup, 64);
    const bool corrects = table_.corrects && f_.structure != Structure::kBlock;
    if (corrects) plan.AddCorrections(grid_.zero(), kGradientGroup);
    // Small matrices are brought to their grid once for all, so that tasks may have few rows.
    const int64_t panel_bytes = tiles_ * kTileRows * pairs_ * kPairCols;
    const bool store = f_.structure != Structure::kBlock &&
                       TaskRows(m, pairs_) < std::min(m, kMaxTaskRows) &&
                       panel_bytes <= ctx.cpu().l2_bytes;
    const int64_t scale_bytes = RoundUp(tiles_ * kTileRows * 4, 64);
    const int64_t stored_bytes = store ? panel_bytes : 0;
    auto* memory = static_cast<uint8_t*>(
        ctx.SharedScratch(static_cast<size_t>(plan.bytes + scale_bytes + stored_bytes)));
    fold_ = reinterpret_cast<float*>(memory);
    uint8_t* rounded = memory + scale_bytes;
    stored_ = store ? rounded + plan.bytes : nullptr;
    Scales(ctx);
    // Rounding dY and filling the panels is one walk: threads wait for each other once.
    constexpr int64_t kRowsAtOnce = 16;
    const int64_t fills = store ? tiles_ : 0;
    ctx.pool().Run(fills + CeilDiv(m, kRowsAtOnce), [&](int64_t task, int worker) {
      if (task < fills) return Store(task);
      const int64_t row = (task - fills) * kRowsAtOnce;
      QuantizeSomeRows(ctx, worker, plan, dy, lddy, fold_, options, row,
                       std::min(row + kRowsAtOnce, m), rounded);
    });
    dy_ = QuantizedRows::At(plan, rounded);
    // A single scale is a group of all outputs.
    dy_.grouped = true;
    corrections_stride_ = corrects ? plan.corrected[0].stride : 0;

    const int64_t task_rows = store ? StoredTaskRows(m) : TaskRows(m, pairs_);
    ctx.pool().Run(pairs_ * CeilDiv(m, task_rows), [&](int64_t task, int worker) {
      const int64_t row0 = task / pairs_ * task_rows;
      Panel(ctx, worker, task % pairs_, row0, std::min(task_rows, m - row0), dx, lddx,
            acc == Accumulate::kAdd, low_rank);
    });
  }

 private:
  // Scales of the rows' grids, [tiles * 16].
  void Scales(ExecContext& ctx) {
    // Reading so few by one thread takes no longer than waking another.
    constexpr int64_t kSerialGroups = 512;
    const auto some = [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) grid_.Scales(tile0_ + t, fold_ + t * kTileRows);
    };
    if (tiles_ * w_.layout().groups <= kSerialGroups) return some(0, tiles_, 0);
    ctx.ParallelFor(tiles_, 4, some);
  }

  // The walk over a stored panel costs little, so there are enough tasks for threads to end
  // together.
  int64_t StoredTaskRows(int64_t m) const {
    constexpr int64_t kEnoughTasks = 32;
    constexpr int64_t kShortRows = 16 * kMaxProductRows;
    const int64_t cuts = std::min(CeilDiv(kEnoughTasks, pairs_), CeilDiv(m, kShortRows));
    return std::min(m, RoundUp(CeilDiv(m, cuts), int64_t{kMaxProductRows}));
  }

  int64_t PairUnits(int64_t pair) const {
    return std::min<int64_t>(2, w_.layout().units - 2 * pair);
  }
  bool Fill(int64_t t, int64_t pair, uint8_t* out, int64_t stride) const {
    return grid_.Fill(tile0_ + t, pair, PairUnits(pair), CursorAt(cursors_, w_, t, pair),
                      fold_ + t * kTileRows, out, stride);
  }
  // Stored panels: [pair][16 columns][tiles][256].
  uint8_t* Stored(int64_t t, int64_t pair) const {
    return stored_ + pair * kPairCols * tiles_ * kTileRows + t * 256;
  }
  void Store(int64_t t) const {
    for (int64_t pair = 0; pair < pairs_; ++pair) {
      Fill(t, pair, Stored(t, pair), tiles_ * kTileRows * kTileRows);
    }
  }

  void Panel(ExecContext& ctx, int worker, int64_t pair, int64_t row0, int64_t rows, float* dx,
             int64_t lddx, bool add, const LowRank& low_rank) const {
    const int64_t width = PairUnits(pair) * kUnitCols;
    const int64_t col = pair * kPairCols, n = std::min(width, f_.cols - col);
    constexpr int64_t kPanelBytes = 4 * kPanelStride;
    const KernelTable& dense = TableFor(ctx.isa());
    // Rows of dX that are a multiple of 4 KiB apart share few sets of the caches: not for sums that
    // come back.
    const bool in_place = n == width && (lddx % 1024 != 0 || tiles_ <= kChunkTiles);
    auto* scratch = static_cast<uint8_t*>(
        ctx.Scratch(worker, static_cast<size_t>(kPanelBytes + rows * width * 4 +
                                                LowRankScratch(dense, low_rank, n) * 4)));
    float* const out = dx + row0 * lddx + col;
    float* const c = in_place ? out : reinterpret_cast<float*>(scratch + kPanelBytes);
    alignas(64) static constexpr float kOnes[kTileRows] = {1, 1, 1, 1, 1, 1, 1, 1,
                                                           1, 1, 1, 1, 1, 1, 1, 1};
    Segment segments[kMaxSegmentCols / kTileRows];
    Run runs[kMaxSegmentCols / kTileRows];
    TileProduct p;
    p.tiles = static_cast<int>(width / kTileRows);
    p.w = scratch;
    p.w_stride = kPanelStride;
    p.zero = grid_.zero();
    p.signed_w = grid_.signed_codes();
    p.segments = segments;
    p.runs = runs;
    p.a_stride = dy_.stride;
    p.sums_stride = dy_.sums_stride;
    p.a_scales_stride = dy_.scales_stride;
    p.corrections_stride = corrections_stride_;
    p.grouped = true;
    p.w_scales = kOnes;
    p.scale_stride = 0;
    // Sums go from dX (or zero) to `c` and, at the last chunk of rows of W, to dX.
    const float* from = nullptr;
    if (add) {
      from = n == width ? out : c;
      p.ld_before = n == width ? lddx : width;
      for (int64_t i = 0; n != width && i < rows; ++i) {
        std::copy_n(out + i * lddx, n, c + i * width);
      }
    }
    bool done = false;
    for (int64_t t0 = 0; t0 < tiles_; t0 += kChunkTiles) {
      const int64_t t1 = std::min(tiles_, t0 + kChunkTiles);
      if (stored_ != nullptr) {
        p.w = Stored(t0, pair);
        p.w_stride = tiles_ * kTileRows * kTileRows;
      }
      int64_t filled = 0, count = 0;
      for (int64_t t = t0; t < t1; ++t) {
        if (stored_ == nullptr && !Fill(t, pair, scratch + filled * 256, kPanelStride)) continue;
        const auto run = static_cast<int32_t>(filled++);
        const auto group = static_cast<int32_t>(t * kTileRows / kGradientGroup);
        runs[run] = {static_cast<int32_t>(t * 4), 4};
        if (count == 0 || segments[count - 1].act_group != group) {
          segments[count++] = {run, 0, 0, group};
        }
        // Runs that follow each other are one.
        Segment& s = segments[count - 1];
        ++s.runs;
      }
      if (count == 0) continue;
      Merge(segments, count, runs);
      p.segment_count = count;
      p.Describe();
      const bool corrects = dy_.corrections[0] != nullptr && 4 * p.steps == kGradientGroup;
      done = in_place || (n == width && t1 == tiles_);
      float* const to = done ? out : c;
      p.ldc = done ? lddx : width;
      for (int64_t i = 0; i < rows; i += kRowsPerCall) {
        p.rows = static_cast<int>(std::min<int64_t>(kRowsPerCall, rows - i));
        p.a = dy_.q + (row0 + i) * dy_.stride;
        p.sums = dy_.sums + (row0 + i) * dy_.sums_stride;
        p.a_scales = dy_.scales + (row0 + i) * dy_.scales_stride;
        p.corrections = nullptr;
        if (corrects) {
          p.corrections = dy_.corrections[0] + (row0 + i) / kMaxProductRows * corrections_stride_ +
                          t0 * kTileRows / kGradientGroup * kCorrectionRows;
        }
        p.c = to + i * p.ldc;
        p.before = from == nullptr ? nullptr : from + i * p.ld_before;
        table_.tile_product(p);
      }
      from = to;
      p.ld_before = p.ldc;
    }
    for (int64_t i = 0; !done && i < rows; ++i) {
      // No tile has anything here.
      if (from == nullptr) {
        std::fill_n(out + i * lddx, n, 0.0f);
      } else if (from != out) {
        std::copy_n(c + i * width, n, out + i * lddx);
      }
    }
    auto* memory = reinterpret_cast<float*>(scratch + kPanelBytes) + rows * width;
    AddLowRank(dense, low_rank, row0, rows, col, n, memory, out, lddx);
  }

  // Joins neighbouring runs of every segment.
  static void Merge(Segment* segments, int64_t count, Run* runs) {
    int32_t to = 0;
    for (int64_t s = 0; s < count; ++s) {
      const int32_t from = segments[s].first_run, n = segments[s].runs;
      segments[s].first_run = to;
      for (int32_t i = from; i < from + n; ++i) {
        Run* last = to > segments[s].first_run ? &runs[to - 1] : nullptr;
        if (last != nullptr && last->step + last->steps == runs[i].step) {
          last->steps += runs[i].steps;
        } else {
          runs[to++] = runs[i];
        }
      }
      segments[s].runs = to - segments[s].first_run;
    }
  }

  const PackedMatrix& w_;
  const PackedFormat& f_;
  const Int8Table& table_;
  TileReader reader_;
  RowGrid grid_;
  int64_t tile0_, tiles_, pairs_;
  AlignedBuffer cursors_;
  float* fold_ = nullptr;
  uint8_t* stored_ = nullptr;  // all panels, or null: filled by the tasks
  QuantizedRows dy_;
  int64_t corrections_stride_ = 0;
};

}  // namespace

PackedPanels::PackedPanels(ExecContext& ctx, const PackedMatrix& w, RowRange range)
    : w_(w),
      range_(range),
      table_(Int8TableFor(ctx.isa())),
      cursors_(AllCursors(ctx, TileReader(w, table_), w, range)) {}

void PackedPanels::Stored(int64_t col, int64_t cols, int64_t row, int64_t rows, int64_t nr,
                          uint16_t* steps) const {
  static_assert(kTileRows == kBStepRun);
  const int64_t panels = CeilDiv(cols, nr);
  std::fill_n(steps, panels, uint16_t{0});
  const int64_t tile0 = (range_.begin + row) / kTileRows;
  const int64_t block_cols = w_.format().block_cols;
  for (int64_t t = 0; t * kTileRows < rows; ++t) {
    for (int64_t b = w_.index(tile0 + t); b < w_.index(tile0 + t + 1); ++b) {
      const int64_t begin = int64_t{w_.block(b)} * block_cols - col;
      const int64_t end = std::min(begin + block_cols, cols);
      for (int64_t p = std::max<int64_t>(0, begin) / nr; p * nr < end; ++p) {
        steps[p] = static_cast<uint16_t>(steps[p] | 1u << t);
      }
    }
  }
}

void PackedPanels::Pack(int64_t col, int64_t cols, int64_t row, int64_t rows, int64_t nr,
                        float* out, uint16_t* steps) const {
  if (steps != nullptr) Stored(col, cols, row, rows, nr, steps);
  const PackedFormat& f = w_.format();
  const TileReader reader(w_, table_);
  const int64_t tile0 = range_.begin / kTileRows;
  const int64_t panel_stride = rows * nr;
  alignas(64) uint8_t codes[2 * kUnitElements], halves[2][256];
  alignas(64) float scales[32], mins[32], values[kTileRows * 16];
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int64_t tile = (row + r) / kTileRows;
    const int64_t valid = std::min(kTileRows, rows - r);
    for (int64_t pair = col / kPairCols; pair * kPairCols < col + cols; ++pair) {
      const int64_t units = std::min<int64_t>(2, w_.layout().units - 2 * pair);
      int64_t owner[2];
      reader.ReadPair(tile0 + tile, 2 * pair, units, CursorAt(cursors_, w_, tile, pair), codes,
                      owner);
      for (int64_t u = 0; u < units; ++u) {
        const bool absent = owner[u] < 0;
        if (absent) {
          std::memset(values, 0, sizeof values);
        } else {
          reader.HalfFactors(owner[u], 2 * pair + u, scales, mins);
          uint8_t* unit = codes + u * kUnitElements;
          if (f.bits == 8 && table_.signed8) {
            for (int64_t i = 0; i < kUnitElements; ++i) unit[i] ^= 0x80;
          }
          table_.transpose(unit, halves[0], halves[1]);
        }
        for (int64_t h = 0; h < 2; ++h) {
          const int64_t c0 = (2 * pair + u) * kUnitCols + 16 * h - col;
          if (c0 <= -16 || c0 >= cols) continue;
          if (!absent) {
            table_.dequantize(halves[h], f.zero(), scales + 16 * h,
                              f.has_min ? mins + 16 * h : nullptr, values, 16);
          }
          // Panels are narrower (8) or as wide or wider than a half.
          for (int64_t j = 0; j < 16; j += std::min<int64_t>(nr, 16)) {
            if (c0 + j < 0 || c0 + j >= cols) continue;
            const int64_t panel = (c0 + j) / nr;
            // Some panel that a block meets may need the zeros beside it.
            if (absent && steps != nullptr && (steps[panel] >> (r / kTileRows) & 1) == 0) continue;
            float* to = out + panel * panel_stride + r * nr + (c0 + j) % nr;
            for (int64_t i = 0; i < valid; ++i) {
              std::memcpy(to + i * nr, values + i * 16 + j,
                          static_cast<size_t>(std::min<int64_t>(nr, 16)) * sizeof(float));
            }
          }
        }
      }
    }
  }
}

void PackedBackwardInput(ExecContext& ctx, int64_t m, const float* dy, int64_t lddy,
                         const PackedMatrix& w, RowRange range, float* dx, int64_t lddx,
                         Accumulate acc, const LinearBackwardOptions& options,
                         const LowRank& low_rank) {
  assert(range.begin % kTileRows == 0 && range.begin >= 0 && range.end <= w.rows());
  if (m <= 0) return;
  if (options.mode == BackwardMode::kInteger && range.begin < range.end) {
    IntegerBackward(ctx, w, range)
        .Compute(ctx, m, dy, lddy, range, dx, lddx, acc, options, low_rank);
    return;
  }
  const PackedPanels panels(ctx, w, range);
  const int64_t nr = TableFor(ctx.isa()).nr;
  Gemm(
      ctx, m, w.cols(), std::max<int64_t>(0, range.end - range.begin), 1.0f,
      {dy, lddy, ALayout::kRowMajor},
      [&](int64_t n0, int64_t nn, int64_t k0, int64_t kk, float* out, uint16_t* steps) {
        panels.Pack(n0, nn, k0, kk, nr, out, steps);
      },
      dx, lddx, acc, {},
      w.format().structure == Structure::kBlock ? GemmGaps::kSome : GemmGaps::kNone, low_rank);
}

}  // namespace edgewise::kernels
