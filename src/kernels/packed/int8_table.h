// Functions on packed codes and int8 activations, once per instruction set (packed/cpu/*.inl.h).
//
// All tables compute the same numbers: integer sums are exact, floats are combined in the order
// given here with fused multiply-adds, so every table equals packed/ref bit for bit.
#pragma once

#include <cstdint>

#include "exec/cpu.h"

namespace edgewise::kernels {

// Rows of activations that a product holds in registers.
inline constexpr int kMaxProductRows = 6;
// Rows of one call: many, since what precedes and follows the sums costs a tenth of six rows; few
// enough to stay in the level 1 cache for all tiles of the panel.
inline constexpr int kRowsPerCall = 8 * kMaxProductRows;
// Columns of the longest integer sum: |code - zero| <= 128 and |a| <= 127 keep it below 2^24, so
// its conversion to fp32 is exact.
inline constexpr int kMaxSegmentCols = 512;
// Activation sums are kept as prefix sums over blocks of this many columns.
inline constexpr int kSumCols = 16;

// A stretch of activations: `steps` steps of 4 columns from step `step` on; multiples of 4 steps.
struct Run {
  int32_t step;
  int32_t steps;
};
// Runs whose integer sum is scaled as one. The panel holds their steps one after the other.
struct Segment {
  int32_t first_run;
  int32_t runs;
  int32_t weight_group;
  int32_t act_group;
};

// Integer sums over at most 128 columns stay below 2^22. Started at kSumStart, the bits of 1.5 *
// 2^23, they are floats that much too large; adding the float with these bits leaves the sum that
// counts codes from `zero` on, exactly. `sum`: of the activations.
inline constexpr int32_t kSumStart = 0x4b400000;
constexpr int32_t SumCorrection(int zero, int32_t sum) {
  return kSumStart - 0x7fffffff - 1 + zero * sum;
}
// Rows of a correction table: those of one register tile, and none to fill up.
inline constexpr int kCorrectionRows = 8;

// C[i][16 t + lane] = `before` and, for each segment s, in order:
//     sum  = exact integer sum of (panel - zero) * a over the segment
//     span = fma(float(sum), w_scale[t][s.weight_group][lane], span)
//     span = fma(w_min[t][s.weight_group][lane], float(sum of a), span)
// and, with grouped activations, after the last of the segments in a row that share s.act_group:
//     c    = fma(span, a_scale[i][s.act_group], c), span = 0
// Otherwise C is the one span, which starts from `before`.
struct TileProduct {
  int rows = 0;                // at least 1
  int tiles = 0;               // 1 .. Int8Table::panel_tiles
  const uint8_t* w = nullptr;  // panel of tile t at w + t * w_stride: steps of [16 lanes][4]
  int64_t w_stride = 0;
  int zero = 0;           // subtracted from panel bytes
  bool signed_w = false;  // panel bytes are signed (then zero = 0)
  const Segment* segments = nullptr;
  int64_t segment_count = 0;
  const Run* runs = nullptr;
  const int8_t* a = nullptr;  // [rows][a_stride]
  int64_t a_stride = 0;
  const int32_t* sums = nullptr;  // [rows][sums_stride]: prefix sums per kSumCols columns
  int64_t sums_stride = 0;
  // SumCorrection of every segment, which spares reading the sums, or null (then of no use to any
  // but short segments of one width): [rows / kMaxProductRows][corrections_stride], the latter
  // [segments][kCorrectionRows].
  const int32_t* corrections = nullptr;
  int64_t corrections_stride = 0;
  const float* a_scales = nullptr;  // [rows][a_scales_stride]
  int64_t a_scales_stride = 0;
  bool grouped = false;
  const float* w_scales = nullptr;  // tile t, group g: w_scales + t * scale_stride + 16 g
  const float* w_mins = nullptr;    // or null
  int64_t scale_stride = 0;
  float* c = nullptr;  // [rows][ldc]
  int64_t ldc = 0;
  const float* before = nullptr;  // [rows][ld_before]: what C's sums start from; null: zero
  int64_t ld_before = 0;          // it may be C itself
  // What is known of the segments (Describe); nothing by default.
  int32_t steps = 0;       // of every one, all in one run; 0: they differ
  int32_t mean_steps = 0;  // of one
  bool spans = true;       // some that follow each other share an activation scale

  // Sets these three: once for the many products with the same segments.
  void Describe() {
    steps = segments[0].runs == 1 ? runs[segments[0].first_run].steps : 0;
    spans = false;
    int64_t total = 0;
    for (int64_t s = 0; s < segment_count; ++s) {
      if (segments[s].runs != 1 || runs[segments[s].first_run].steps != steps) steps = 0;
      spans = spans || (s > 0 && segments[s].act_group == segments[s - 1].act_group);
      for (int32_t r = 0; r < segments[s].runs; ++r) {
        total += runs[segments[s].first_run + r].steps;
      }
    }
    mean_steps = static_cast<int32_t>(total / segment_count);
  }
};

// c[lane] (+)= the product of one row with one tile, straight from its packed form; the same sums
// in the same order as TileProduct's. Segments have one run each, of whole units (the last is taken
// as whole: activations beyond the matrix are zero).
struct TileDecode {
  int bits = 0;
  int zero = 0;                    // as TileProduct::zero for the panels of the same codes
  const uint8_t* values[2] = {};   // dense: units in the order of the segments; sparse: planes
  const uint8_t* masks = nullptr;  // sparse
  // N:M: compressed values and where they belong, both as dense units; steps of 4 compressed
  // columns for every 16 columns, and of which of these each of the 4 counts from.
  const uint8_t* positions = nullptr;
  int position_bits = 0;
  int block_steps = 0;
  int32_t bases[3] = {};
  int64_t stored_halves = 0;  // of compressed units of the tile, 4 steps each
  const Segment* segments = nullptr;
  int64_t segment_count = 0;
  const Run* runs = nullptr;
  const int8_t* a = nullptr;
  const int32_t* sums = nullptr;
  const float* a_scales = nullptr;
  bool grouped = false;
  // decode_dense: every segment is half a unit, and they come in pairs.
  bool half_units = false;
  // Factors of the groups: fp32 [groups][16], or fp16 where they are (further tiles' may follow),
  // or two-level ones (Int8Table::two_level): fp16 of 2^super_shift groups each, times bytes.
  struct Factors {
    const float* floats = nullptr;
    const uint8_t* halves = nullptr;
    const int8_t* bytes = nullptr;
  };
  int super_shift = 0;
  Factors scales;
  bool has_min = false;  // dense only
  Factors mins;
  float* c = nullptr;  // [16]; with grouped activations, added to
};

// One row to int8: q = round(x fold inv) with inv = 127 / max|x fold| per group, scale = max / 127.
// A row (group) with a value that is not finite gets scale NaN and q = 0, so that the products say
// so; one whose maximum is below 2^-100 counts as zero.
struct QuantizeRow {
  const float* x = nullptr;
  const float* fold = nullptr;   // factor per column, or null
  const float* noise = nullptr;  // [cols] in [0, 1): q = floor(x inv + noise); null: nearest even
  int64_t cols = 0;
  int64_t padded = 0;  // multiple of 64: q is zero beyond cols
  int64_t group = 0;   // columns per scale, a multiple of 16; 0: one
  int8_t* q = nullptr;
  float* scales = nullptr;  // one per group
  int32_t* sums = nullptr;  // [padded / kSumCols + 1]
};

// Where the next value of every step (modulo 8) of an unstructured tile lies.
struct SparseCursor {
  uint32_t kept[8] = {};  // elements kept before, per step modulo 8
};

struct Int8Table {
  const char* name;
  int panel_tiles;  // tiles that tile_product handles at its best speed
  bool corrects;    // whether it makes use of TileProduct::corrections
  // 8-bit panels hold signed bytes (code ^ 0x80) rather than codes.
  bool signed8;

  void (*tile_product)(const TileProduct& p);
  void (*decode_dense)(const TileDecode& d);
  void (*decode_sparse)(const TileDecode& d);
  // Segments are whole halves (4 steps) of compressed units, but for what the last lacks beyond the
  // matrix; 16 columns are 1 to 3 whole steps.
  void (*decode_nm)(const TileDecode& d);

  // codes [units][8 steps][16][4] from dense units; 8-bit codes as `signed8` says.
  void (*unpack)(int bits, const uint8_t* src, int64_t units, uint8_t* codes);
  // The same from an unstructured tile: mask words, planes as in packed_matrix.h; advances cursor.
  void (*expand)(int bits, const uint8_t* masks, const uint8_t* const planes[2], int64_t units,
                 SparseCursor* cursor, uint8_t* codes);
  // Dense units from compressed ones: values (code ^ zero, as unpacked without `signed8`) and
  // positions, both [.][8][16][4]. value_units = dense units * n / m.
  void (*expand_nm)(int bits, int n, int m, const uint8_t* values, const uint8_t* positions,
                    int64_t units, uint8_t* codes);
  // As `unpack`, never with signed8: fields of 2, 3 and 4 bits too.
  void (*unpack_raw)(int bits, const uint8_t* src, int64_t units, uint8_t* codes);

  // One unit [8 steps of columns][16 rows][4 columns] -> panels of the transposed product:
  // out0 (columns 0..15) and out1 (16..31): [4 steps of rows][16 columns][4 rows].
  void (*transpose)(const uint8_t* unit, uint8_t* out0, uint8_t* out1);
  // A unit's codes to int8 on a grid of the row: b = round((code - zero) scale + min), scale and
  // min [2 halves of 16 columns][16 rows]; out as `signed8` says (else b + 128). min may be null.
  void (*requantize)(const uint8_t* unit, int code_zero, const float* scale, const float* min,
                     uint8_t* out);
  // A transposed half unit to fp32: out[o * ld + k] = (code - zero) * scale[o] + min[o], separate
  // roundings; 16 x 16. min may be null.
  void (*dequantize)(const uint8_t* half, int code_zero, const float* scale, const float* min,
                     float* out, int64_t ld);

  void (*quantize_row)(const QuantizeRow& r);
  // Noise [n] for QuantizeRow, 16 random bits each in units of 2^-16; writes up to a multiple
  // of 32. Columns 32 b + i and 32 b + 16 + i (i below 16) are the low and the high half of a hash
  // of start + (16 b + i) step.
  void (*noise_row)(uint32_t start, uint32_t step, int64_t n, float* noise);
  // y (+)= c * scale + bias; bias may be null; scale 1 where activations are grouped.
  void (*finish_row)(int64_t n, const float* c, float scale, const float* bias, bool add, float* y);
  void (*half_to_float)(const uint8_t* halves, int64_t n, float* out);
  // Two-level scales: out[i][16] = halves[(skip + i) / per_super][16] * bytes[i][16], i below n.
  void (*two_level)(const uint8_t* halves, const int8_t* bytes, int64_t per_super, int64_t skip,
                    int64_t n, float* out);

  // One head of a row of kv_quant.h (type: KvType): its product with q, whose elements sum to
  // q_sum; y += p times it.
  float (*kv_dot)(int type, int64_t n, const uint8_t* row, const float* q, float q_sum);
  void (*kv_axpy)(int type, int64_t n, const uint8_t* row, float p, float* y);
};

// The table for `isa`.
const Int8Table& Int8TableFor(Isa isa);

}  // namespace edgewise::kernels
