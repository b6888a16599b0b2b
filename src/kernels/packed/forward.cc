// Y = X W^T on packed weights.
#include <cassert>
#include <optional>

#include "kernels/packed/row_forward.h"
#include "kernels/packed/task_rows.h"

namespace edgewise::kernels {
namespace {

// Tasks of a product of few rows: at most so many, of at least so many tiles.
constexpr int64_t kMaxCuts = 64;
constexpr int64_t kLeastTiles = 4;

// Where the sums of a task are before, between and after its panels: in Y if they are its results
// as they are, else beside each other in the task's own memory.
struct Sums {
  struct Rows {
    float* at = nullptr;  // of the task's first row and column; null: zeros
    int64_t ld = 0;
  };
  Rows first, between, last;
  bool in_y;  // nothing is left to do with them

  static Sums Of(const Call& call, const Work& work, int64_t tile, int64_t tiles, int64_t row0,
                 int64_t rows) {
    const int64_t width = tiles * kTileRows, col = tile * kTileRows - call.range.begin;
    const Rows y = {call.y + row0 * call.ldy + col, call.ldy}, own = {work.c, width};
    const bool in_y = call.straight() && WholeTiles(call, tile, tiles);
    const bool adds = call.straight() && call.add;
    if (adds && !in_y) {
      const int64_t n = call.range.end - tile * kTileRows;
      for (int64_t i = 0; i < rows; ++i) std::copy_n(y.at + i * y.ld, n, own.at + i * own.ld);
    }
    return {!adds ? Rows{} : in_y ? y : own, own, in_y ? y : own, in_y};
  }
};

// Packed weights that are needed next and still in memory: fetched bit by bit while others are
// multiplied.
struct Ahead {
  const uint8_t* at[kMaxTiles];
  int64_t tiles = 0, lines = 0;  // cache lines of each tile
  int64_t tile = 0, line = 0;    // next

  // Units [first, first + count) of tiles that follow each other. Dense ones only: where the others
  // lie depends on the data.
  static Ahead Of(const PackedMatrix& w, int64_t tile, int64_t tiles, int64_t first,
                  int64_t count) {
    Ahead a;
    if (w.format().structure != Structure::kDense) return a;
    a.tiles = tiles;
    a.lines = count * w.format().bits;
    for (int64_t t = 0; t < tiles; ++t) {
      a.at[t] = w.values(tile + t) + first * 64 * w.format().bits;
    }
    return a;
  }
  // The next `count` lines.
  void Fetch(int64_t count) {
    for (; count > 0 && tile < tiles; --count) {
      __builtin_prefetch(at[tile] + line * 64, 0, 2);
      if (++line == lines) line = 0, ++tile;
    }
  }
};

// to = from + panel * activations for all rows of the task. `first`: the number of the first of the
// segments among those of a whole row, where there are corrections.
void Multiply(const Call& call, const Work& work, const Sums::Rows& from, const Sums::Rows& to,
              int64_t tiles, int64_t segments, int64_t first, int64_t row0, int64_t rows,
              Ahead ahead) {
  TileProduct p;
  p.tiles = static_cast<int>(tiles);
  p.w = work.panel;
  p.w_stride = kPanelBytes;
  p.zero = call.reader.zero();
  p.signed_w = call.reader.signed_codes();
  p.segments = work.segments;
  p.segment_count = segments;
  p.runs = work.runs;
  p.a_stride = call.x.stride;
  p.sums_stride = call.x.sums_stride;
  p.a_scales_stride = call.x.scales_stride;
  p.corrections_stride = call.corrections_stride;
  p.grouped = call.x.grouped;
  p.w_scales = work.scales;
  p.w_mins = call.w.format().has_min ? work.mins : nullptr;
  p.scale_stride = kMaxGroups * kTileRows;
  p.ldc = to.ld;
  p.ld_before = from.ld;
  p.Describe();
  const int64_t part = CeilDiv(ahead.tiles * ahead.lines, CeilDiv(rows, int64_t{kRowsPerCall}));
  for (int64_t i = 0; i < rows; i += kRowsPerCall) {
    p.rows = static_cast<int>(std::min<int64_t>(kRowsPerCall, rows - i));
    p.a = call.x.q + (row0 + i) * call.x.stride;
    p.sums = call.x.sums + (row0 + i) * call.x.sums_stride;
    p.a_scales = call.x.scales + (row0 + i) * call.x.scales_stride;
    if (call.corrections != nullptr && 4 * p.steps == call.segment_cols) {
      p.corrections = call.corrections + (row0 + i) / kMaxProductRows * call.corrections_stride +
                      first * kCorrectionRows;
    }
    p.c = to.at + i * to.ld;
    p.before = from.at == nullptr ? nullptr : from.at + i * from.ld;
    call.table.tile_product(p);
    ahead.Fetch(part);
  }
}

// Units of a panel, from `u` on.
int64_t PanelUnits(int64_t units, int64_t u) {
  return units - u <= kPanelUnits ? units - u : kChunkUnits;
}

// How many times a tile's units fill a panel. (The last holds up to kPanelUnits.)
int64_t PanelPieces(int64_t units) {
  return units <= kPanelUnits ? 1 : 1 + CeilDiv(units - kPanelUnits, kChunkUnits);
}

// Tiles [tile, tile + tiles) of a dense, unstructured or N:M matrix. ahead(i): what to fetch while
// their i-th piece is multiplied.
template <typename Next>
void ForwardTiles(const Call& call, Work work, int64_t tile, int64_t tiles, int64_t row0,
                  int64_t rows, const Next& ahead) {
  const PackedFormat& f = call.w.format();
  const int64_t units = call.w.layout().units;
  const int64_t cols = RoundUp(f.cols, 16);
  const Sums sums = Sums::Of(call, work, tile, tiles, row0, rows);
  SparseCursor cursors[kMaxTiles];
  for (int64_t u = 0, count = 0; u < units; u += count) {
    count = PanelUnits(units, u);
    const int64_t col = u * kUnitCols;
    const int64_t first = call.reader.GroupOf(col);
    const int64_t groups = f.group == 0 ? 1
                                        : std::min(CeilDiv(count * kUnitCols, f.group),
                                                   call.w.layout().groups - first);
    for (int64_t t = 0; t < tiles; ++t) {
      for (int64_t v = 0; v < count; v += kChunkUnits) {
        call.reader.Read(tile + t, u + v, std::min(kChunkUnits, count - v), &cursors[t],
                         work.panel + t * kPanelBytes + v * kUnitElements);
      }
      float* scales = work.scales + t * kMaxGroups * kTileRows;
      call.reader.Scales(tile + t, first, groups, scales);
      if (f.has_min) {
        call.reader.Mins(tile + t, first, groups, work.mins + t * kMaxGroups * kTileRows);
      }
    }
    int64_t segments = 0;
    AddSegments(call, col, std::min(count * kUnitCols, cols - col), 0, &work, &segments);
    const int64_t end = u + count;
    Multiply(call, work, u == 0 ? sums.first : sums.between, end < units ? sums.between : sums.last,
             tiles, segments, col / call.segment_cols, row0, rows, ahead(u / kChunkUnits));
  }
  if (!sums.in_y) Finish(call, work, tile, tiles, row0, rows);
}

// One tile of a block-sparse matrix: only stored blocks are computed.
void ForwardBlocks(const Call& call, Work work, int64_t tile, int64_t row0, int64_t rows) {
  const PackedFormat& f = call.w.format();
  const int64_t per_chunk = kMaxSegmentCols / f.block_cols;
  const int64_t unit_count = f.block_cols / kUnitCols;
  const int64_t groups = call.w.layout().groups;
  const int64_t begin = call.w.index(tile), end = call.w.index(tile + 1);
  const Sums sums = Sums::Of(call, work, tile, 1, row0, rows);
  if (begin == end && sums.first.at == nullptr) {
    for (int64_t i = 0; i < rows; ++i)
      std::fill_n(sums.last.at + i * sums.last.ld, kTileRows, 0.0f);
  }
  for (int64_t b = begin, count = 0; b < end; b += count) {
    count = std::min(per_chunk, end - b);
    // Blocks that share an activation scale are summed as one.
    if (call.act_group > f.block_cols && b + count < end) {
      const int64_t share = call.act_group / f.block_cols;
      while (call.w.block(b + count) / share == call.w.block(b + count - 1) / share) --count;
    }
    call.table.unpack(f.bits, call.w.values(b), count * unit_count, work.panel);
    const int64_t owner = f.group == 0 ? tile : b;
    const int64_t factors = f.group == 0 ? 1 : count * groups;
    call.reader.Scales(owner, 0, factors, work.scales);
    if (f.has_min) call.reader.Mins(owner, 0, factors, work.mins);
    int64_t segments = 0;
    for (int64_t i = 0; i < count; ++i) {
      // The last block may reach beyond the matrix: no activation group has those columns.
      const int64_t col = int64_t{call.w.block(b + i)} * f.block_cols;
      AddSegments(call, col, std::min<int64_t>(f.block_cols, RoundUp(f.cols, 16) - col), i * groups,
                  &work, &segments);
    }
    Multiply(call, work, b == begin ? sums.first : sums.between,
             b + count < end ? sums.between : sums.last, 1, segments, 0, row0, rows, {});
  }
  if (!sums.in_y) Finish(call, work, tile, 1, row0, rows);
}

// What is added to tiles [tile, tile + tiles), once they are in Y.
void AddLowRank(const Call& call, const Work& work, int64_t tile, int64_t tiles, int64_t row0,
                int64_t rows) {
  const int64_t col = tile * kTileRows - call.range.begin;
  const int64_t n = std::min(tiles * kTileRows, call.range.end - tile * kTileRows);
  AddLowRank(call.dense, call.low_rank, row0, rows, col, n, work.low_rank,
             call.y + row0 * call.ldy + col, call.ldy);
}

// Columns of a segment of integer sums.
int64_t SegmentCols(const PackedFormat& f, int64_t act_group) {
  int64_t cols = kMaxSegmentCols;
  if (f.group > 0) cols = std::min<int64_t>(cols, f.group);
  if (act_group > 0) cols = std::min(cols, act_group);
  return cols;
}

// How one matrix is cut into tasks.
struct Product {
  Call call;
  RowSegments row;     // of each row, alone
  bool blocks, alone;  // alone: few rows, straight from the packed form
  int64_t tile0, tile_end, width, panels;
  int64_t task_rows, row_tasks, tasks;
  ProductTiling tiling;
  int threads;
  // Few rows: task i has panels [cuts[i + 1], cuts[i]); else every task has one.
  int64_t cuts[kMaxCuts + 1];

  // `corrected`: of the plan's, or -1.
  Product(const PackedTarget& t, const ExecContext& ctx, const QuantizedRows& x,
          const QuantizePlan& plan, int corrected, void* row_memory)
      : call{*t.w,
             Int8TableFor(ctx.isa()),
             TileReader(*t.w, Int8TableFor(ctx.isa())),
             x,
             corrected < 0 ? nullptr : x.corrections[corrected],
             corrected < 0 ? 0 : plan.corrected[corrected].stride,
             SegmentCols(t.w->format(), plan.group),
             plan.group,
             t.bias,
             t.y,
             t.ldy,
             t.range,
             t.acc == Accumulate::kAdd,
             t.low_rank,
             TableFor(ctx.isa())} {
    const PackedFormat& f = t.w->format();
    const int64_t m = plan.m;
    blocks = f.structure == Structure::kBlock;
    alone = m <= kAloneRows && RowForward::Can(f, call.segment_cols);
    if (alone && !blocks) {
      row = RowSegments::At(row_memory, RowSegments::Most(x.stride, call.segment_cols));
      row.Add(call, 0, f.cols, 0);
    }
    tile0 = t.range.begin / kTileRows;
    tile_end = CeilDiv(t.range.end, kTileRows);
    tiling = t.w->tiling();
    threads = ctx.threads();
    const bool tuned = tiling.tiles > 0 && tiling.task_rows > 0 && m > kFewRows;
    width = blocks || m <= kFewRows ? 1 : tuned ? std::min(tiling.tiles, kMaxTiles) : kMaxTiles;
    panels = CeilDiv(tile_end - tile0, width);
    task_rows = TaskRows(m, panels);
    if (tuned) {
      task_rows = std::min({RoundUp(tiling.task_rows, kMaxProductRows), kMaxTaskRows, m});
    }
    row_tasks = CeilDiv(m, task_rows);
    tasks = m <= kFewRows ? Cut() : panels * row_tasks;
  }

  // Weights are read once and in the order of memory, in stretches as long as can be: at the start
  // of each the processor has to find out anew what to fetch ahead. The last stretches are short,
  // so that threads end together. (The pool takes tasks from the last to the first.)
  int64_t Cut() {
    int64_t sizes[kMaxCuts], n = 0;
    for (int64_t left = panels; left > 0; left -= sizes[n++]) {
      const int64_t share = CeilDiv(left, 3 * threads);
      sizes[n] = std::min(left, std::max({kLeastTiles, share, CeilDiv(left, kMaxCuts - n)}));
    }
    cuts[n] = 0;
    for (int64_t i = 0; i < n; ++i) cuts[n - 1 - i] = cuts[n - i] + sizes[i];
    return n;
  }

  int64_t PanelOf(int64_t task) const {
    return tiling.order == LoopOrder::kRows ? task / row_tasks : task % panels;
  }
  int64_t FirstRowOf(int64_t task) const {
    return (tiling.order == LoopOrder::kRows ? task % row_tasks : task / panels) * task_rows;
  }

  // What is likely to be needed `distance` pieces after the piece-th of a task's tiles. Every
  // thread takes one of the tasks that follow.
  Ahead Next(int64_t task, int64_t piece, int64_t distance) const {
    if (distance == 0) return {};
    const int64_t pieces = PanelPieces(call.w.layout().units), at = piece + distance;
    const int64_t then = task - at / pieces * threads;
    return then < 0 ? Ahead() : Piece(tile0 + PanelOf(then) * width, at % pieces);
  }

  // Of the tiles of a panel that begins with this one.
  Ahead Piece(int64_t tile, int64_t piece) const {
    const int64_t first = piece * kChunkUnits;
    return Ahead::Of(call.w, tile, std::min(width, tile_end - tile), first,
                     PanelUnits(call.w.layout().units, first));
  }

  void Run(ExecContext& ctx, int worker, int64_t task, int64_t m) const {
    if (alone) {
      RowForward one(ctx, worker, call, m, row);
      for (int64_t p = cuts[task + 1]; p < cuts[task]; ++p) one.Tile(tile0 + p);
      return;
    }
    const bool few = m <= kFewRows;
    const int64_t row0 = few ? 0 : FirstRowOf(task);
    const int64_t rows = std::min(task_rows, m - row0);
    const Work work = Work::Take(ctx, worker, width, rows,
                                 LowRankScratch(call.dense, call.low_rank, width * kTileRows));
    const int64_t first = few ? cuts[task + 1] : PanelOf(task);
    const int64_t last = few ? cuts[task] : first + 1;
    for (int64_t p = first; p < last; ++p) {
      const int64_t tile = tile0 + p * width;
      const int64_t tiles = std::min(width, tile_end - tile);
      if (blocks) {
        ForwardBlocks(call, work, tile, row0, rows);
      } else if (few) {
        const int64_t pieces = PanelPieces(call.w.layout().units);
        ForwardTiles(call, work, tile, tiles, row0, rows, [&](int64_t piece) {
          return piece + 1 < pieces ? Piece(tile, piece + 1) : Ahead();
        });
      } else {
        ForwardTiles(call, work, tile, tiles, row0, rows,
                     [&](int64_t piece) { return Next(task, piece, tiling.ahead); });
      }
      AddLowRank(call, work, tile, tiles, row0, rows);
    }
  }
};

// The plan's table of corrections for w, if tile_product has use for one; -1: it has not.
int Corrections(const ExecContext& ctx, const PackedMatrix& w, QuantizePlan* plan) {
  const PackedFormat& f = w.format();
  const Int8Table& table = Int8TableFor(ctx.isa());
  const int64_t width = SegmentCols(f, plan->group);
  const bool use = table.corrects && plan->m > kFewRows && width <= 128 && width % 32 == 0 &&
                   f.structure != Structure::kBlock && !f.has_min;
  return use ? plan->AddCorrections(TileReader(w, table).zero(), width) : -1;
}

// round(plan, memory): X as rounded rows.
template <typename Round>
void ForwardMany(ExecContext& ctx, int64_t m, std::span<const PackedTarget> targets, Round round) {
  if (m <= 0 || targets.empty()) return;
  assert(targets.size() <= kMaxTargets);
  const PackedFormat& first = targets[0].w->format();
  int64_t multiple = 64;
  for (const PackedTarget& t : targets) {
    assert(t.range.begin % kTileRows == 0 && t.range.begin >= 0 && t.range.end <= t.w->rows());
    assert(SharesInput(*t.w, *targets[0].w));
    assert(t.low_rank.r == 0 || m > kAloneRows);
    multiple = std::max<int64_t>(multiple, t.w->format().block_cols);
  }
  QuantizePlan plan = QuantizePlan::Make(m, first.cols, first.act_group, multiple);
  int corrected[kMaxTargets];
  for (size_t i = 0; i < targets.size(); ++i) {
    corrected[i] = Corrections(ctx, *targets[i].w, &plan);
  }
  const int64_t most = RowSegments::Bytes(RowSegments::Most(plan.stride, 16));
  auto* memory = static_cast<uint8_t*>(ctx.SharedScratch(
      static_cast<size_t>(plan.bytes + most * static_cast<int64_t>(targets.size()))));
  const QuantizedRows rows = round(plan, memory);
  std::optional<Product> products[kMaxTargets];
  int64_t ends[kMaxTargets], total = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    products[i].emplace(targets[i], ctx, rows, plan, corrected[i],
                        memory + plan.bytes + most * static_cast<int64_t>(i));
    ends[i] = total += std::max<int64_t>(0, products[i]->tasks);
  }
  ctx.pool().Run(total, [&](int64_t task, int worker) {
    size_t i = 0;
    while (task >= ends[i]) ++i;
    products[i]->Run(ctx, worker, task - (i == 0 ? 0 : ends[i - 1]), m);
  });
}

}  // namespace

void PackedForwardMany(ExecContext& ctx, int64_t m, const float* x, int64_t ldx,
                       std::span<const PackedTarget> targets) {
  ForwardMany(ctx, m, targets, [&](const QuantizePlan& plan, void* memory) {
    return QuantizeRows(ctx, plan, x, ldx, nullptr, {}, memory);
  });
}

void PackedForwardMade(ExecContext& ctx, int64_t m, RowMaker make,
                       std::span<const PackedTarget> targets) {
  ForwardMany(ctx, m, targets, [&](const QuantizePlan& plan, void* memory) {
    return MakeQuantizedRows(ctx, plan, make, memory);
  });
}

void PackedForward(ExecContext& ctx, int64_t m, const float* x, int64_t ldx, const PackedMatrix& w,
                   RowRange range, const float* bias, float* y, int64_t ldy, Accumulate acc,
                   const LowRank& low_rank) {
  if (range.begin >= range.end) return;
  const PackedTarget target = {&w, range, bias, y, ldy, acc, low_rank};
  PackedForwardMany(ctx, m, x, ldx, {&target, 1});
}

}  // namespace edgewise::kernels
