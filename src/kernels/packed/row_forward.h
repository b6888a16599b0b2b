// Very few rows times a packed matrix: codes go from the packed form into registers. Internal.
#pragma once

#include <bit>

#include "kernels/packed/forward_call.h"

namespace edgewise::kernels {

// Segments of a whole row, the same for every tile of a matrix without blocks.
struct RowSegments {
  Segment* segments = nullptr;
  Run* runs = nullptr;
  int64_t count = 0;

  // How many a row may have, and bytes of both lists.
  static int64_t Most(int64_t stride, int64_t segment_cols) {
    return RoundUp(CeilDiv(stride, std::min<int64_t>(32, segment_cols)), 4);
  }
  static int64_t Bytes(int64_t most) { return most * int64_t{sizeof(Segment) + sizeof(Run)}; }
  static RowSegments At(void* memory, int64_t most) {
    auto* segments = static_cast<Segment*>(memory);
    return {segments, reinterpret_cast<Run*>(segments + most), 0};
  }
  // Columns [begin, end); `begin` starts scale group `group`.
  void Add(const Call& call, int64_t begin, int64_t end, int64_t group) {
    const PackedFormat& f = call.w.format();
    Work work = {};
    work.segments = segments;
    work.runs = runs;
    for (int64_t c = begin; c < end; c += kMaxSegmentCols) {
      const int64_t cols = std::min<int64_t>(kMaxSegmentCols, RoundUp(end - c, kUnitCols));
      AddSegments(call, c, cols, f.group == 0 ? 0 : group + (c - begin) / f.group, &work, &count);
    }
  }
};

// Up to so many rows: a tile is decoded again for each, which costs less than expanding it once,
// and only the first reads it from memory (streams that vote on one token, say).
constexpr int64_t kAloneRows = 4;

// Each tile is read once, in the order of memory, and codes stay in registers.
class RowForward {
 public:
  static bool Can(const PackedFormat& f, int64_t segment_cols) {
    if (f.structure != Structure::kNM) {
      return segment_cols >= kUnitCols ||
             (f.structure == Structure::kDense && f.cols % kUnitCols == 0);
    }
    // 16 columns are whole steps of compressed ones, and segments whole halves of units.
    const int64_t block = 16 * f.nm_n / f.nm_m;
    return 16 * f.nm_n % f.nm_m == 0 && block % 4 == 0 && segment_cols / 16 * block % 16 == 0;
  }

  // `shared`: of the whole matrix, if it has no blocks.
  RowForward(ExecContext& ctx, int worker, const Call& call, int64_t rows,
             const RowSegments& shared)
      : call_(call), f_(call.w.format()), rows_(rows), row_(shared) {
    const int64_t most = RowSegments::Most(call.x.stride, call.segment_cols);
    const bool blocks = f_.structure == Structure::kBlock;
    // Scales in halves are read where they are, and in two levels, too, where they follow each
    // other.
    in_place_ = f_.scale_type != ScaleType::kF32;
    const int64_t factors = in_place_ ? 0 : most * kTileRows;
    auto* at = static_cast<uint8_t*>(ctx.Scratch(
        worker, static_cast<size_t>(factors * 8 + (blocks ? RowSegments::Bytes(most) : 0) + 64)));
    scales_ = reinterpret_cast<float*>(at);
    mins_ = reinterpret_cast<float*>(at) + factors;
    if (blocks) row_ = RowSegments::At(mins_ + factors, most);
    d_.bits = f_.bits;
    d_.half_units = call.segment_cols < kUnitCols;
    d_.zero = call.reader.zero();
    d_.segments = row_.segments;
    d_.runs = row_.runs;
    d_.grouped = call.x.grouped;
    d_.has_min = f_.has_min;
    if (f_.scale_type == ScaleType::kSuper) {
      d_.super_shift = std::countr_zero(static_cast<uint32_t>(kSuperGroupCols / f_.group));
    }
    if (!in_place_) d_.scales.floats = scales_, d_.mins.floats = mins_;
    work_.c = c_;
    if (f_.structure == Structure::kNM) {
      d_.position_bits = NmIndexBits(f_.nm_m);
      d_.block_steps = 4 * f_.nm_n / f_.nm_m;
      d_.stored_halves = 2 * call.w.layout().value_units;
      for (int i = 0; i < 4 * d_.block_steps; ++i) {
        d_.bases[i / 4] |= i / f_.nm_n * f_.nm_m << (8 * (i % 4));
      }
    }
  }

  void Tile(int64_t tile) {
    const PackedLayout& l = call_.w.layout();
    int64_t owner = tile, factors = l.groups;
    if (f_.structure == Structure::kBlock) {
      const int64_t begin = call_.w.index(tile), end = call_.w.index(tile + 1);
      row_.count = 0;
      for (int64_t b = begin; b < end; ++b) {
        const int64_t col = int64_t{call_.w.block(b)} * f_.block_cols;
        const int64_t to = std::min<int64_t>(f_.cols, col + f_.block_cols);
        row_.Add(call_, col, to, (b - begin) * l.groups);
      }
      owner = f_.group == 0 ? tile : begin;
      factors = f_.group == 0 ? 1 : (end - begin) * l.groups;
      d_.values[0] = call_.w.values(begin);
    } else if (f_.structure == Structure::kDense) {
      d_.values[0] = call_.w.values(tile);
    } else if (f_.structure == Structure::kNM) {
      d_.values[0] = call_.w.values(tile);
      d_.positions = call_.w.section(l.aux + tile * l.value_units * 64 * d_.position_bits);
    } else {
      const int planes = PlanesOf(f_.bits).count;
      for (int p = 0; p < planes; ++p) {
        d_.values[p] = call_.w.section(l.values) + int64_t{4} * call_.w.index(tile * planes + p);
      }
      d_.masks = call_.w.section(l.aux) + tile * l.units * 64;
    }
    if (factors > 0) {
      if (in_place_) {
        d_.scales = FactorsAt(l.scales, l.scale_subs, owner);
        if (f_.has_min) d_.mins = FactorsAt(l.mins, l.min_subs, owner);
      } else {
        call_.reader.Prefetch(owner + factors / l.groups, factors);
        call_.reader.Scales(owner, 0, factors, scales_);
        if (f_.has_min) call_.reader.Mins(owner, 0, factors, mins_);
      }
    }
    d_.segment_count = row_.count;
    const bool in_y = call_.straight() && WholeTiles(call_, tile, 1);
    const int64_t col = tile * kTileRows - call_.range.begin;
    for (int64_t i = 0; i < rows_; ++i) {
      float* const y = call_.y + i * call_.ldy + col;
      d_.c = in_y ? y : c_;
      if (call_.x.grouped && !(in_y && call_.add)) std::fill_n(d_.c, kTileRows, 0.0f);
      if (call_.straight() && call_.add && !in_y) {
        std::copy_n(y, call_.range.end - tile * kTileRows, c_);
      }
      d_.a = call_.x.q + i * call_.x.stride;
      d_.sums = call_.x.sums + i * call_.x.sums_stride;
      d_.a_scales = call_.x.scales + i * call_.x.scales_stride;
      if (f_.structure == Structure::kUnstructured) {
        call_.table.decode_sparse(d_);
      } else if (f_.structure == Structure::kNM) {
        call_.table.decode_nm(d_);
      } else {
        call_.table.decode_dense(d_);
      }
      if (!in_y) Finish(call_, work_, tile, 1, i, 1);
    }
  }

 private:
  TileDecode::Factors FactorsAt(int64_t section, int64_t subs, int64_t owner) const {
    const PackedLayout& l = call_.w.layout();
    TileDecode::Factors f;
    if (f_.scale_type == ScaleType::kSuper) {
      f.halves = call_.w.section(section + owner * l.supers * kTileRows * 2);
      f.bytes =
          reinterpret_cast<const int8_t*>(call_.w.section(subs + owner * l.groups * kTileRows));
    } else {
      f.halves = call_.w.section(section + owner * l.groups * kTileRows * 2);
    }
    return f;
  }

  const Call& call_;
  const PackedFormat& f_;
  const int64_t rows_;
  bool in_place_;  // factors are read where they are
  float *scales_, *mins_;
  alignas(64) float c_[kTileRows];
  TileDecode d_;
  Work work_ = {};
  RowSegments row_;
};

}  // namespace edgewise::kernels
