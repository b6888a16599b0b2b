// The specification of products with packed weights. Integer sums are exact; floats are combined in
// the order written here, so that every instruction set gives the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "kernels/packed/int8_table.h"
#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels::ref {

struct QuantizedRow {
  std::vector<int> q;
  std::vector<float> scales;
  int64_t group = 0;
};

// group 0, or not smaller than the row: one scale.
inline QuantizedRow Quantize(const std::vector<float>& x, int64_t group) {
  QuantizedRow r;
  const auto n = static_cast<int64_t>(x.size());
  r.group = group > 0 && group < n ? group : n;
  for (int64_t begin = 0; begin < n; begin += r.group) {
    const int64_t end = std::min(n, begin + r.group);
    float max = 0;
    bool finite = true;
    for (int64_t i = begin; i < end; ++i) {
      finite = finite && std::isfinite(x[static_cast<size_t>(i)]);
      max = std::max(max, std::fabs(x[static_cast<size_t>(i)]));
    }
    const bool zero = !finite || max < 0x1p-100f;
    r.scales.push_back(!finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0 : max / 127.0f);
    const float inverse = 127.0f / max;
    for (int64_t i = begin; i < end; ++i) {
      const float scaled = x[static_cast<size_t>(i)] * inverse;
      r.q.push_back(zero ? 0
                         : static_cast<int>(std::clamp(std::nearbyint(scaled), -127.0f, 127.0f)));
    }
  }
  return r;
}

// Everything about W by element.
struct Elements {
  std::vector<int> code;  // code - zero, [rows, cols]
  std::vector<float> scale, min;
  std::vector<uint8_t> present;  // false inside absent blocks
};

inline Elements Explode(const PackedMatrix& w) {
  const PackedFormat& f = w.format();
  const int64_t units = w.layout().units;
  Elements e;
  const auto n = static_cast<size_t>(f.rows * f.cols);
  e.code.resize(n);
  e.scale.resize(n);
  e.min.resize(n);
  e.present.resize(n);
  std::vector<uint8_t> codes(static_cast<size_t>(units * kUnitElements));
  const auto present = std::make_unique<bool[]>(static_cast<size_t>(units));
  for (int64_t t = 0; t < w.layout().tiles; ++t) {
    w.DecodeUnits(t, 0, units, codes.data(), present.get());
    for (int64_t c = 0; c < f.cols; ++c) {
      int64_t owner = t, col = c;
      if (f.structure == Structure::kBlock && f.group > 0 && present[c / kUnitCols]) {
        owner = w.index(t);
        while (w.block(owner) != c / f.block_cols) ++owner;
        col = c % f.block_cols;
      }
      float scale[kTileRows] = {}, min[kTileRows] = {};
      if (present[c / kUnitCols]) {
        w.LoadScales(owner, f.group == 0 ? 0 : col / f.group, 1, scale);
        if (f.has_min) w.LoadMins(owner, f.group == 0 ? 0 : col / f.group, 1, min);
      }
      for (int64_t r = 0; r < kTileRows && t * kTileRows + r < f.rows; ++r) {
        const auto at = static_cast<size_t>((t * kTileRows + r) * f.cols + c);
        e.code[at] = codes[static_cast<size_t>(c / 4 * 64 + r * 4 + c % 4)] - f.zero();
        e.scale[at] = scale[r];
        e.min[at] = min[r];
        e.present[at] = present[c / kUnitCols];
      }
    }
  }
  return e;
}

// One element of Y = y + X W^T, before bias. (With bias, what Y held is added at the end.)
inline float ForwardElement(const PackedFormat& f, const Elements& w, int64_t o,
                            const QuantizedRow& x, float y = 0) {
  const bool grouped = x.group < f.cols;
  int64_t segment = kMaxSegmentCols;
  if (f.group > 0) segment = std::min<int64_t>(segment, f.group);
  if (grouped) segment = std::min(segment, x.group);
  if (f.structure == Structure::kBlock) segment = std::min<int64_t>(segment, f.block_cols);
  // span: of the columns that share an activation scale.
  float span = 0;
  bool any = false;
  for (int64_t begin = 0; begin < f.cols; begin += segment) {
    const auto at = static_cast<size_t>(o * f.cols + begin);
    const int64_t end = std::min(f.cols, begin + segment);
    if (w.present[at] != 0) {
      any = true;
      int dot = 0, sum = 0;
      for (int64_t c = begin; c < end; ++c) {
        const int q = x.q[static_cast<size_t>(c)];
        dot += w.code[static_cast<size_t>(o * f.cols + c)] * q;
        sum += q;
      }
      span = std::fma(static_cast<float>(dot), w.scale[at], span);
      if (f.has_min) span = std::fma(w.min[at], static_cast<float>(sum), span);
    }
    if (!grouped || (end < f.cols && end % x.group != 0)) continue;
    if (any) y = std::fma(span, x.scales[static_cast<size_t>(begin / x.group)], y);
    span = 0;
    any = false;
  }
  return grouped ? y : y + span * x.scales[0];
}

// The integer form of W for the backward pass: S per row, and codes of at most 8 bits.
struct RowCodes {
  std::vector<float> fold;  // [rows]
  std::vector<int> code;    // [rows, cols]
};

inline RowCodes Requantize(const PackedFormat& f, const Elements& w) {
  RowCodes out;
  out.code = w.code;
  const bool one_scale = f.group == 0 && !f.has_min;
  const float top = static_cast<float>(f.has_min ? (1 << f.bits) - 1 : 1 << (f.bits - 1));
  for (int64_t o = 0; o < f.rows; ++o) {
    float s = 0;
    for (int64_t c = 0; c < f.cols; ++c) {
      const auto at = static_cast<size_t>(o * f.cols + c);
      if (w.present[at] == 0 && !one_scale) continue;
      s = std::max({s, std::fabs(w.min[at]), std::fabs(w.scale[at] * top + w.min[at])});
      if (one_scale && w.present[at] != 0) s = w.scale[at];
      if (one_scale && w.present[at] != 0) break;
    }
    if (!one_scale) s /= 127.0f;
    out.fold.push_back(s);
    if (one_scale) continue;
    const float inverse = s > 0 ? 1.0f / s : 0.0f;
    for (int64_t c = 0; c < f.cols; ++c) {
      const auto at = static_cast<size_t>(o * f.cols + c);
      const float value = std::fma(static_cast<float>(w.code[at]), w.scale[at] * inverse,
                                   f.has_min ? w.min[at] * inverse : 0.0f);
      out.code[at] = w.present[at] != 0 ? static_cast<int>(std::nearbyint(value)) : 0;
    }
  }
  return out;
}

// One element of dX += dY W the integer way; dy is a row of dY fold, rounded with groups of 128.
inline float BackwardElement(const PackedFormat& f, const RowCodes& w, int64_t c,
                             const QuantizedRow& dy, float dx) {
  const int64_t segment = dy.group;
  for (int64_t begin = 0; begin < f.rows; begin += segment) {
    int dot = 0;
    for (int64_t o = begin; o < std::min(f.rows, begin + segment); ++o) {
      dot += w.code[static_cast<size_t>(o * f.cols + c)] * dy.q[static_cast<size_t>(o)];
    }
    dx = std::fma(static_cast<float>(dot), dy.scales[static_cast<size_t>(begin / segment)], dx);
  }
  return dx;
}

}  // namespace edgewise::kernels::ref
