// Attention in tiles of kAttentionKeys keys: one task of the forward pass (a block of queries of
// heads that share keys), one task of the backward pass (one query head). Tiles start at multiples
// of kAttentionKeys, and a tile that a query does not see leaves its sums as they are, so a query's
// bits do not depend on which others are in its block.
#pragma once

#include "kernels/cpu/elementwise.inl.h"
#include "kernels/cpu/gemm.inl.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

constexpr int64_t kKeys = kAttentionKeys;
// Queries of one inner block of the backward pass: whole register tiles.
constexpr int64_t kQueries = kMr * (kMr < 56 ? 56 / kMr : 1);

constexpr int64_t PadColumns(int64_t n) { return (n + kNr - 1) / kNr * kNr; }

// Rows of a [rows, n] matrix as the right side of a product: in place when n fills whole panels,
// else copied to `packed`.
EW_INLINE BPanels RowPanels(const float* src, int64_t ld, int64_t rows, int64_t n, float* packed) {
  if (n % kNr == 0) return {src, kNr, ld};
  PackB(DType::kF32, src, ld, n, rows, packed);
  return {packed, kNr * rows, kNr};
}

// Keys of tile k0 that a query sees: [lo, hi), counted from k0.
struct Visible {
  int64_t lo, hi;
};
EW_INLINE Visible VisibleKeys(int64_t first, int64_t last, int64_t k0, int64_t keys) {
  const int64_t lo = first > k0 ? first - k0 : 0;
  const int64_t end = last + 1 - k0;
  return {lo, end < keys ? end : keys};
}

EW_INLINE Vec KeepRange(Vec v, int64_t index, Visible range, Vec other) {
  const Vec i = Iota() + Set1(static_cast<float>(index));
  const Vec kept = SelectLess(i, Set1(static_cast<float>(range.hi)), v, other);
  return SelectLess(i, Set1(static_cast<float>(range.lo)), other, kept);
}

// What is subtracted from a row's scores before the exponential need not be their maximum, only
// near it: it follows when a score exceeds it by more than this. Weights are at most e^8 then, and
// finding the maximum and rescaling earlier sums is rare.
constexpr float kSlack = 8.0f;

// What a row of queries keeps from tile to tile.
struct SoftmaxRow {
  float* shift;  // what is subtracted from its scores
  float* sums;   // [kLanes] of its weights
  float* out;    // [width] of weights times values
  int64_t width;
};

// What is subtracted from the scores of a tile whose maximum is that of `top`'s lanes.
EW_INLINE Vec FollowMaximum(const SoftmaxRow& row, Vec top) {
  const float old = *row.shift;
  float now = old;
  if (AnyLess(Set1(old + kSlack), top)) {
    *row.shift = now = ReduceMax(top);
    // (Sums of nothing are zeros.)
    if (old != -__builtin_inff()) {
      const float factor = ExpScalar(old - now);
      Store(row.sums, Set1(factor) * Load(row.sums));
      Scale(row.width, factor, row.out);
    }
  }
  // A row that has seen nothing yet has weights of zero, whatever is subtracted.
  return Set1(now == -__builtin_inff() ? 0.0f : now);
}

EW_INLINE Vec CapScore(Vec s, float softcap) {
  return softcap > 0 ? Set1(softcap) * Tanh(s * Set1(1.0f / softcap)) : s;
}

// One row of scores of a tile that it sees wholly to weights exp(s - shift), in place.
EW_INLINE void SoftmaxStep(float* s, float softcap, const SoftmaxRow& row) {
  constexpr int kVectors = kKeys / kLanes;
  Vec v[kVectors], top[kVectors];
#pragma GCC unroll 16
  for (int j = 0; j < kVectors; ++j) v[j] = Load(s + j * kLanes);
  if (softcap > 0) {
    for (Vec& x : v) x = CapScore(x, softcap);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kVectors; ++j) top[j] = v[j];
#pragma GCC unroll 4
  for (int step = 1; step < kVectors; step *= 2) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; j += 2 * step) top[j] = Max(top[j], top[j + step]);
  }
  const Vec shift = FollowMaximum(row, top[0]);
#pragma GCC unroll 16
  for (int j = 0; j < kVectors; ++j) {
    v[j] = ExpOfSmall(v[j] - shift);
    Store(s + j * kLanes, v[j]);
  }
#pragma GCC unroll 4
  for (int step = 1; step < kVectors; step *= 2) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; j += 2 * step) v[j] = v[j] + v[j + step];
  }
  Store(row.sums, Load(row.sums) + v[0]);
}

// The same of a row that sees a part of the tile: weights of what it does not see are zeros. s has
// room for kKeys.
EW_INLINE void SoftmaxPart(float* s, Visible range, float softcap, const SoftmaxRow& row) {
  constexpr int kVectors = kKeys / kLanes;
  const Vec zero = Set1(0.0f), minus_inf = Set1(-__builtin_inff());
  Vec v[kVectors];
  for (Vec& x : v) x = zero;
  if (range.lo < range.hi) {
    const int64_t begin = range.lo / kLanes, end = (range.hi + kLanes - 1) / kLanes;
    Vec top = minus_inf;
    for (int64_t j = begin; j < end; ++j) {
      v[j] = KeepRange(CapScore(Load(s + j * kLanes), softcap), j * kLanes, range, minus_inf);
      top = Max(top, v[j]);
    }
    const Vec shift = FollowMaximum(row, top);
    for (int64_t j = begin; j < end; ++j) v[j] = ExpOfSmall(v[j] - shift);
  }
  for (int j = 0; j < kVectors; ++j) Store(s + j * kLanes, v[j]);
  for (int step = 1; step < kVectors; step *= 2) {
    for (int j = 0; j < kVectors; j += 2 * step) v[j] = v[j] + v[j + step];
  }
  Store(row.sums, Load(row.sums) + v[0]);
}

// The walk of a block's rows over its queries, head after head.
struct QueryRows {
  int64_t queries;
  int64_t at = 0;  // of the row that is next
  // Of the next n rows, the last query among them.
  int64_t Last(int64_t n) const { return at + n < queries ? at + n - 1 : queries - 1; }
  void Pass(int64_t n) {
    for (at += n; at >= queries;) at -= queries;
  }
};

int64_t AttentionForwardScratch(int64_t rows, int64_t d) {
  const int64_t dp = PadColumns(d);
  return (rows + kMr) * d + rows * dp + rows * kKeys + PadColumns(kKeys) * d + kKeys * dp +
         rows * (1 + kLanes);
}

void AttentionForwardTask(const AttentionArgs& g, int64_t head_begin, int64_t head_end,
                          int64_t q_begin, int64_t q_end, float* scratch) {
  const int64_t d = g.shape.head_dim, dp = PadColumns(d);
  const int64_t queries = q_end - q_begin, rows = (head_end - head_begin) * queries;
  const int64_t kv = head_begin / (g.shape.q_heads / g.shape.kv_heads) * d;
  float* q = scratch;
  float* o = q + (rows + kMr) * d;
  float* s = o + rows * dp;
  float* kt = s + rows * kKeys;
  float* vp = kt + PadColumns(kKeys) * d;
  float* shift = vp + kKeys * dp;
  float* sums = shift + rows;
  // Row r of the block is head head_begin + r / queries, query q_begin + r % queries. Panels of
  // packed queries must not mix heads unless their rows are evenly spaced; copying makes them so.
  // (Heads of one query lie side by side.)
  // (Rows lie apart: the processor does not fetch them ahead by itself.)
  constexpr int64_t kAhead = 6;
  const int64_t wide = (head_end - head_begin) * d;
  for (int64_t t = 0; t < queries; ++t) {
    const float* src = g.q + (q_begin + t) * g.ldq + head_begin * d;
    for (int64_t i = 0; t + kAhead < queries && i < wide; i += 16) {
      __builtin_prefetch(src + kAhead * g.ldq + i);
    }
    for (int64_t r = t; r < rows; r += queries, src += d) {
      ForVectors(d,
                 [&](int64_t i, int64_t n) { StoreUpTo(o + r * d + i, LoadUpTo(src + i, n), n); });
    }
  }
  PackA(ALayout::kRowMajor, o, d, rows, d, q);
  for (int64_t i = 0; i < rows * dp; ++i) o[i] = 0;
  for (int64_t i = 0; i < rows * kLanes; ++i) sums[i] = 0;
  for (int64_t r = 0; r < rows; ++r) shift[r] = -__builtin_inff();

  const int64_t last = g.mask.q_offset + q_end - 1;
  for (int64_t k0 = g.mask.first_key[q_begin] / kKeys * kKeys; k0 <= last; k0 += kKeys) {
    const int64_t keys = last + 1 - k0 < kKeys ? last + 1 - k0 : kKeys;
    PackBTransposed(DType::kF32, g.k + k0 * g.ldkv + kv, g.ldkv, keys, d, kt);
    const BPanels values = RowPanels(g.v + k0 * g.ldkv + kv, g.ldkv, keys, d, vp);
    // A register tile of rows at a time, each only as far as the last key that one of them sees.
    // (One product after the other for all rows: its right side then stays in the level 1 cache.)
    auto seen = [&](const QueryRows& at, int64_t n) {
      const int64_t sees = g.mask.q_offset + q_begin + at.Last(n) + 1 - k0;
      return sees < 0 ? 0 : sees < keys ? sees : keys;
    };
    QueryRows at = {queries};
    for (int64_t r = 0; r < rows; r += kMr, at.Pass(kMr)) {
      const int64_t n = rows - r < kMr ? rows - r : kMr;
      const int64_t columns = seen(at, n);
      if (columns == 0) continue;
      Multiply(n, columns, d, ALayout::kPanels, q + r * d, kMr * d, {kt, kNr * d, kNr},
               g.shape.scale, s + r * kKeys, kKeys, false);
    }
    at = {queries};
    for (int64_t r = 0; r < rows; ++r, at.Pass(1)) {
      const int64_t t = q_begin + at.at;
      const Visible range = VisibleKeys(g.mask.first_key[t], g.mask.q_offset + t, k0, keys);
      const SoftmaxRow row = {shift + r, sums + r * kLanes, o + r * dp, dp};
      if (range.lo == 0 && range.hi == kKeys) {
        SoftmaxStep(s + r * kKeys, g.shape.softcap, row);
      } else {
        SoftmaxPart(s + r * kKeys, range, g.shape.softcap, row);
      }
      if (k0 + kKeys <= last) continue;
      // Where the results go is far away.
      const float* out = g.out + t * g.ldo + (head_begin + r / queries) * d;
      for (int64_t i = 0; i < d; i += 16) __builtin_prefetch(out + i, 1);
    }
    at = {queries};
    for (int64_t r = 0; r < rows; r += kRowMr, at.Pass(kRowMr)) {
      const int64_t n = rows - r < kRowMr ? rows - r : kRowMr;
      Multiply(n, d, seen(at, n), ALayout::kRowMajor, s + r * kKeys, kKeys, values, 1.0f,
               o + r * dp, dp, true);
    }
  }
  for (int64_t t = 0; t < queries; ++t) {
    float* out = g.out + (q_begin + t) * g.ldo + head_begin * d;
    int64_t h = head_begin;
    for (int64_t r = t; r < rows; r += queries, out += d, ++h) {
      const float sum = ReduceAdd(Load(sums + r * kLanes));
      const Vec inverse = Set1(1.0f / sum);
      ForVectors(d, [&](int64_t i, int64_t n) {
        StoreUpTo(out + i, LoadUpTo(o + r * dp + i, n) * inverse, n);
      });
      if (g.lse != nullptr) g.lse[h * g.q_len + q_begin + t] = shift[r] + __builtin_logf(sum);
    }
  }
}

int64_t AttentionBackwardScratch(int64_t len, int64_t d) {
  const int64_t dp = PadColumns(d);
  return 2 * PadColumns(kKeys) * d + kKeys * dp + 2 * kQueries * dp + 2 * kQueries * kKeys +
         2 * kKeys * dp + len;
}

// Scores and products with dout to weights p and ds, in place.
EW_INLINE void SoftmaxVjpRow(float* s, float* dp, Visible range, float softcap, float scale,
                             float lse, float delta) {
  const Vec zero = Set1(0.0f);
  const bool whole = range.lo == 0 && range.hi == kKeys;
  for (int64_t j = 0; j < kKeys; j += kLanes) {
    Vec v = Load(s + j), slope = Set1(scale);
    if (softcap > 0) {
      const Vec t = Tanh(v * Set1(1.0f / softcap));
      v = Set1(softcap) * t;
      slope = slope * (Set1(1.0f) - t * t);
    }
    // No score that is seen exceeds its row's log-sum-exp (by more than rounding).
    const Vec p = ExpOfSmall(v - Set1(lse));
    const Vec ds = p * (Load(dp + j) - Set1(delta)) * slope;
    Store(s + j, whole ? p : KeepRange(p, j, range, zero));
    Store(dp + j, whole ? ds : KeepRange(ds, j, range, zero));
  }
}

void AttentionBackwardTask(const AttentionGradArgs& g, int64_t head, float* dk, float* dv,
                           int64_t lddkv, float* scratch) {
  const int64_t d = g.shape.head_dim, dp = PadColumns(d), len = g.len;
  const int64_t hq = head * d, kv = head / (g.shape.q_heads / g.shape.kv_heads) * d;
  float* kt = scratch;
  float* vt = kt + PadColumns(kKeys) * d;
  float* kp = vt + PadColumns(kKeys) * d;
  float* qp = kp + kKeys * dp;
  float* op = qp + kQueries * dp;
  float* s = op + kQueries * dp;
  float* ds = s + kQueries * kKeys;
  float* dk_tile = ds + kQueries * kKeys;
  float* dv_tile = dk_tile + kKeys * dp;
  float* delta = dv_tile + kKeys * dp;
  const float* lse = g.lse + head * len;
  for (int64_t t = 0; t < len; ++t) {
    delta[t] = Dot(d, g.dout + t * g.ldo + hq, g.out + t * g.ldo + hq);
    float* dq = g.dq + t * g.lddq + hq;
    ForVectors(d, [&](int64_t i, int64_t n) { StoreUpTo(dq + i, Set1(0.0f), n); });
  }
  for (int64_t k0 = 0; k0 < len; k0 += kKeys) {
    const int64_t keys = len - k0 < kKeys ? len - k0 : kKeys;
    const float* k = g.k + k0 * g.ldkv + kv;
    PackBTransposed(DType::kF32, k, g.ldkv, keys, d, kt);
    PackBTransposed(DType::kF32, g.v + k0 * g.ldkv + kv, g.ldkv, keys, d, vt);
    const BPanels k_rows = RowPanels(k, g.ldkv, keys, d, kp);
    for (int64_t i = 0; i < 2 * kKeys * dp; ++i) dk_tile[i] = 0;
    // Later queries whose document starts beyond this tile do not see it, nor do any after them.
    for (int64_t q0 = k0; q0 < len && g.mask.first_key[q0] < k0 + keys; q0 += kQueries) {
      const int64_t n = len - q0 < kQueries ? len - q0 : kQueries;
      const float* q = g.q + q0 * g.ldq + hq;
      const float* dout = g.dout + q0 * g.ldo + hq;
      // Keys that the queries up to `end` of this block see.
      auto seen = [&](int64_t end) { return q0 + end - k0 < keys ? q0 + end - k0 : keys; };
      for (int64_t r = 0; r < n; r += kRowMr) {
        const int64_t m = n - r < kRowMr ? n - r : kRowMr;
        Multiply(m, seen(r + m), d, ALayout::kRowMajor, q + r * g.ldq, g.ldq, {kt, kNr * d, kNr},
                 g.shape.scale, s + r * kKeys, kKeys, false);
      }
      for (int64_t r = 0; r < n; r += kRowMr) {
        const int64_t m = n - r < kRowMr ? n - r : kRowMr;
        Multiply(m, seen(r + m), d, ALayout::kRowMajor, dout + r * g.ldo, g.ldo, {vt, kNr * d, kNr},
                 1.0f, ds + r * kKeys, kKeys, false);
      }
      for (int64_t r = 0; r < n; ++r) {
        const int64_t t = q0 + r;
        SoftmaxVjpRow(s + r * kKeys, ds + r * kKeys, VisibleKeys(g.mask.first_key[t], t, k0, keys),
                      g.shape.softcap, g.shape.scale, lse[t], delta[t]);
      }
      Multiply(keys, d, n, ALayout::kKMajor, s, kKeys, RowPanels(dout, g.ldo, n, d, op), 1.0f,
               dv_tile, dp, true);
      Multiply(keys, d, n, ALayout::kKMajor, ds, kKeys, RowPanels(q, g.ldq, n, d, qp), 1.0f,
               dk_tile, dp, true);
      for (int64_t r = 0; r < n; r += kRowMr) {
        const int64_t m = n - r < kRowMr ? n - r : kRowMr;
        Multiply(m, d, seen(r + m), ALayout::kRowMajor, ds + r * kKeys, kKeys, k_rows, 1.0f,
                 g.dq + (q0 + r) * g.lddq + hq, g.lddq, true);
      }
    }
    for (int64_t j = 0; j < keys; ++j) {
      ForVectors(d, [&](int64_t i, int64_t n) {
        StoreUpTo(dk + (k0 + j) * lddkv + i, LoadUpTo(dk_tile + j * dp + i, n), n);
        StoreUpTo(dv + (k0 + j) * lddkv + i, LoadUpTo(dv_tile + j * dp + i, n), n);
      });
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
