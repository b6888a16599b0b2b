#include "kernels/packed/block_product.h"

#include <algorithm>

#include "base/checked.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kTiles = BlockProduct::kRows / kTileRows;
// Tiles multiplied at once: their 512 columns stay in the level 1 cache.
constexpr int64_t kAtOnce = 4;
constexpr int64_t kPanelBytes = BlockProduct::kRows * kTileRows;  // of 16 columns, transposed
// Rows rounded at once by Backward: whole calls of tile_product.
constexpr int64_t kRowsAtOnce = 10 * kMaxProductRows;
constexpr int64_t kSumsStride = BlockProduct::kRows / kSumCols + 1;

}  // namespace

BlockProduct::BlockProduct(const PackedMatrix& w, const Int8Table& table)
    : w_(w),
      table_(table),
      reader_(w, table),
      grid_(reader_, w, table),
      units_(w.layout().units),
      groups_(w.layout().groups) {
  const PackedFormat& f = w.format();
  const int64_t act_group = Plan(1).group;
  int64_t width = kMaxSegmentCols;
  if (f.group > 0) width = std::min<int64_t>(width, f.group);
  if (act_group > 0) width = std::min(width, act_group);
  const int64_t cols = RoundUp(f.cols, 16);
  for (int64_t c = 0; c < cols; c += width) {
    if (c % kMaxSegmentCols == 0) chunks_.push_back(static_cast<int64_t>(segments_.size()));
    const auto index = static_cast<int32_t>(segments_.size());
    segments_.push_back({index, 1, static_cast<int32_t>(f.group == 0 ? 0 : c / f.group),
                         static_cast<int32_t>(act_group == 0 ? 0 : c / act_group)});
    runs_.push_back(
        {static_cast<int32_t>(c / 4), static_cast<int32_t>(std::min(width, cols - c) / 4)});
  }
  chunks_.push_back(static_cast<int64_t>(segments_.size()));
}

QuantizePlan BlockProduct::Plan(int64_t n) const {
  return QuantizePlan::Make(n, w_.cols(), w_.format().act_group, 64);
}

// Codes [8 tiles][units][512], scales [8 tiles][groups][16], mins.
int64_t BlockProduct::forward_bytes() const {
  const int64_t factors = kTiles * groups_ * kTileRows * 4;
  return kTiles * units_ * kUnitElements + factors * (w_.format().has_min ? 2 : 1);
}

void BlockProduct::PackForward(int64_t first, int64_t columns, uint8_t* out) const {
  auto* scales = reinterpret_cast<float*>(out + kTiles * units_ * kUnitElements);
  float* mins = scales + kTiles * groups_ * kTileRows;
  for (int64_t t = 0; t < CeilDiv(columns, kTileRows); ++t) {
    const int64_t tile = first / kTileRows + t;
    for (int64_t u = 0; u < units_; u += kChunkUnits) {
      reader_.Read(tile, u, std::min(kChunkUnits, units_ - u), nullptr,
                   out + (t * units_ + u) * kUnitElements);
    }
    reader_.Scales(tile, 0, groups_, scales + t * groups_ * kTileRows);
    if (w_.format().has_min) reader_.Mins(tile, 0, groups_, mins + t * groups_ * kTileRows);
  }
}

void BlockProduct::Forward(const QuantizedRows& x, int64_t row, int64_t rows, int64_t columns,
                           const uint8_t* panel, float* z, int64_t ldz) const {
  const auto* scales = reinterpret_cast<const float*>(panel + kTiles * units_ * kUnitElements);
  const float* mins = scales + kTiles * groups_ * kTileRows;
  TileProduct p;
  p.w_stride = units_ * kUnitElements;
  p.zero = reader_.zero();
  p.signed_w = reader_.signed_codes();
  p.runs = runs_.data();
  p.a_stride = x.stride;
  p.sums_stride = x.sums_stride;
  p.a_scales_stride = x.scales_stride;
  p.grouped = x.grouped;
  p.scale_stride = groups_ * kTileRows;
  p.ldc = p.ld_before = ldz;
  const int64_t tiles = CeilDiv(columns, kTileRows);
  for (int64_t t = 0; t < tiles; t += kAtOnce) {
    p.tiles = static_cast<int>(std::min(kAtOnce, tiles - t));
    p.w_scales = scales + t * p.scale_stride;
    p.w_mins = w_.format().has_min ? mins + t * p.scale_stride : nullptr;
    for (size_t c = 0; c + 1 < chunks_.size(); ++c) {
      p.w = panel + t * p.w_stride + static_cast<int64_t>(c) * kChunkUnits * kUnitElements;
      p.segments = segments_.data() + chunks_[c];
      p.segment_count = chunks_[c + 1] - chunks_[c];
      p.Describe();
      for (int64_t i = 0; i < rows; i += kRowsPerCall) {
        p.rows = static_cast<int>(std::min<int64_t>(kRowsPerCall, rows - i));
        p.a = x.q + (row + i) * x.stride;
        p.sums = x.sums + (row + i) * x.sums_stride;
        p.a_scales = x.scales + (row + i) * x.scales_stride;
        p.c = z + i * ldz + t * kTileRows;
        p.before = c == 0 ? nullptr : p.c;
        table_.tile_product(p);
      }
    }
  }
  if (x.grouped) return;
  for (int64_t i = 0; i < rows; ++i) {
    table_.finish_row(columns, z + i * ldz, x.scales[row + i], nullptr, false, z + i * ldz);
  }
}

// Panels [cols / 16][128 rows / 4][16][4], then the rows' scales [128].
int64_t BlockProduct::backward_bytes() const {
  return units_ * 2 * kPanelBytes + kRows * static_cast<int64_t>(sizeof(float));
}

void BlockProduct::PackBackward(int64_t first, int64_t columns, uint8_t* out) const {
  auto* scales = reinterpret_cast<float*>(out + units_ * 2 * kPanelBytes);
  const int64_t tiles = CeilDiv(columns, kTileRows);
  for (int64_t t = 0; t < tiles; ++t) {
    float* s = scales + t * kTileRows;
    grid_.Scales(first / kTileRows + t, s);
    for (int64_t u = 0; u < units_; u += 2) {
      grid_.Fill(first / kTileRows + t, u / 2, std::min<int64_t>(2, units_ - u), {}, s,
                 out + u * 2 * kPanelBytes + t * 256, kPanelBytes);
    }
  }
}

void BlockProduct::Backward(int64_t rows, int64_t columns, const float* p, int64_t ldp,
                            const uint8_t* panel, float* o, int64_t ldo) const {
  alignas(64) int8_t q[kRowsAtOnce * kRows];
  int32_t sums[kRowsAtOnce * kSumsStride];
  float scales[kRowsAtOnce];
  alignas(64) static constexpr float kOnes[kTileRows] = {1, 1, 1, 1, 1, 1, 1, 1,
                                                         1, 1, 1, 1, 1, 1, 1, 1};
  const Segment segment = {0, 1, 0, 0};
  const Run run = {0, static_cast<int32_t>(RoundUp(columns, kTileRows) / 4)};
  QuantizeRow r;
  r.fold = reinterpret_cast<const float*>(panel + units_ * 2 * kPanelBytes);
  r.cols = columns;
  r.padded = RoundUp(columns, 64);
  TileProduct t;
  t.w_stride = kPanelBytes;
  t.zero = grid_.zero();
  t.signed_w = grid_.signed_codes();
  t.segments = &segment;
  t.segment_count = 1;
  t.runs = &run;
  t.a_stride = kRows;
  t.sums_stride = kSumsStride;
  t.a_scales_stride = 1;
  t.grouped = true;
  t.w_scales = kOnes;
  t.ldc = t.ld_before = ldo;
  t.Describe();
  const int64_t tiles = w_.cols() / kTileRows;
  for (int64_t i0 = 0; i0 < rows; i0 += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, rows - i0);
    for (int64_t i = 0; i < n; ++i) {
      r.x = p + (i0 + i) * ldp;
      r.q = q + i * kRows;
      r.sums = sums + i * kSumsStride;
      r.scales = scales + i;
      table_.quantize_row(r);
    }
    for (int64_t c = 0; c < tiles; c += kAtOnce) {
      t.tiles = static_cast<int>(std::min(kAtOnce, tiles - c));
      t.w = panel + c * kPanelBytes;
      for (int64_t i = 0; i < n; i += kRowsPerCall) {
        t.rows = static_cast<int>(std::min<int64_t>(kRowsPerCall, n - i));
        t.a = q + i * kRows;
        t.sums = sums + i * kSumsStride;
        t.a_scales = scales + i;
        t.c = o + (i0 + i) * ldo + c * kTileRows;
        t.before = t.c;
        table_.tile_product(t);
      }
    }
  }
}

}  // namespace edgewise::kernels
