// Matrix product on register tiles: packing, the tile, and the walk over tiles of one block. See
// KernelTable for what each function promises.
#pragma once

#include "kernels/kernel_table.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {
namespace {

constexpr int kNr = kNv * kLanes;
// Rows read straight from a row-major A: no more streams than ways in a level 1 cache.
constexpr int kRowMr = kMr < 8 ? kMr : 8;

// kGaps: only the steps of k that `steps` (BPanels::steps) names.
template <int kRows, bool kRowMajorA, bool kGaps>
void Tile(int64_t k, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
          float alpha, float* c, int64_t ldc, bool add, int64_t columns, uint32_t steps) {
  Vec acc[kRows][kNv];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kNv; ++j) acc[i][j] = Set1(0.0f);
  }
  const float *a0 = a, *b0 = b;
  int64_t end = k;
  // Once around, or once per named run.
  do {
    int64_t p = 0;
    if constexpr (kGaps) {
      if (steps == 0) break;
      p = __builtin_ctz(steps) * kBStepRun;
      steps &= steps - 1;
      end = k - p < kBStepRun ? k : p + kBStepRun;
      a = a0 + p * (kRowMajorA ? 1 : a_stride);
      b = b0 + p * b_stride;
    }
    for (; p < end; ++p) {
      Vec bv[kNv];
#pragma GCC unroll 4
      for (int j = 0; j < kNv; ++j) bv[j] = Load(b + j * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vec ai = Set1(kRowMajorA ? a[i * a_stride] : a[i]);
#pragma GCC unroll 4
        for (int j = 0; j < kNv; ++j) acc[i][j] = Fma(ai, bv[j], acc[i][j]);
      }
      a += kRowMajorA ? 1 : a_stride;
      b += b_stride;
    }
  } while (kGaps);
  const Vec scale = Set1(alpha);
  if (columns == kNr) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kNv; ++j) {
        float* out = c + i * ldc + j * kLanes;
        Store(out, add ? Fma(scale, acc[i][j], Load(out)) : scale * acc[i][j]);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kNv; ++j) {
      float* out = c + i * ldc + j * kLanes;
      int64_t n = columns - j * kLanes;
      if (n <= 0) continue;
      if (n > kLanes) n = kLanes;
      StoreN(out, add ? Fma(scale, acc[i][j], LoadN(out, n)) : scale * acc[i][j], n);
    }
  }
}

using TileFn = void (*)(int64_t, const float*, int64_t, const float*, int64_t, float, float*,
                        int64_t, bool, int64_t, uint32_t);

// Entry [rows - 1].
template <bool kRowMajorA, bool kGaps, int... kIndex>
struct TileTable {
  static constexpr TileFn kFns[] = {Tile<kIndex + 1, kRowMajorA, kGaps>...};
};
template <bool kRowMajorA, bool kGaps, int kCount, int... kIndex>
struct MakeTileTable : MakeTileTable<kRowMajorA, kGaps, kCount - 1, kCount - 1, kIndex...> {};
template <bool kRowMajorA, bool kGaps, int... kIndex>
struct MakeTileTable<kRowMajorA, kGaps, 0, kIndex...> : TileTable<kRowMajorA, kGaps, kIndex...> {};

void Multiply(int64_t m, int64_t n, int64_t k, ALayout a_layout, const float* a, int64_t a_stride,
              const BPanels& b, float alpha, float* c, int64_t ldc, bool add) {
  const bool row_major = a_layout == ALayout::kRowMajor;
  const int step = row_major ? kRowMr : kMr;
  const bool gaps = b.steps != nullptr;
  const TileFn* tiles = row_major ? gaps ? MakeTileTable<true, true, kRowMr>::kFns
                                         : MakeTileTable<true, false, kRowMr>::kFns
                        : gaps    ? MakeTileTable<false, true, kMr>::kFns
                                  : MakeTileTable<false, false, kMr>::kFns;
  for (int64_t i = 0; i < m; i += step) {
    const int rows = static_cast<int>(m - i < step ? m - i : step);
    const float* ai = a;
    int64_t stride = a_stride;
    switch (a_layout) {
      case ALayout::kRowMajor:
        ai += i * a_stride;
        break;
      case ALayout::kKMajor:
        ai += i;
        break;
      case ALayout::kPanels:
        ai += i / kMr * a_stride;
        stride = kMr;
        break;
    }
    const TileFn tile = tiles[rows - 1];
    const float* bj = b.data;
    // The next panel of A is fetched a share per tile.
    const char* next = reinterpret_cast<const char*>(ai + a_stride);
    const char* const next_end =
        next +
        (a_layout == ALayout::kPanels && i + step < m ? a_stride * int64_t{sizeof(float)} : 0);
    const int64_t share = (next_end - next) * kNr / n + 64;
    for (int64_t j = 0; j < n; j += kNr, bj += b.panel_stride) {
      for (const char* stop = next + share; next < stop && next < next_end; next += 64) {
        __builtin_prefetch(next, 0, 2);
      }
      // C is far away by the time it is needed; the multiply-adds of the tile hide the trip. (Here,
      // not in the tile, where the addresses would take registers from the sums.)
      for (int r = 0; r < rows; ++r) {
        __builtin_prefetch(c + (i + r) * ldc + j, 1);
        __builtin_prefetch(c + (i + r) * ldc + j + kNr - 1, 1);
      }
      tile(k, ai, stride, bj, b.k_stride, alpha, c + i * ldc + j, ldc, add,
           n - j < kNr ? n - j : kNr, gaps ? b.steps[j / kNr] : 0);
    }
  }
}

// Loads that convert to fp32, for each storage type.
struct F32Source {
  using Element = float;
  static EW_INLINE Vec LoadVec(const float* p) { return Load(p); }
  static EW_INLINE Vec LoadPart(const float* p, int64_t n) { return LoadN(p, n); }
};
template <bool kBrain>
struct F16Source {
  using Element = uint16_t;
  static EW_INLINE Vec LoadVec(const uint16_t* p) { return kBrain ? LoadBF16(p) : LoadF16(p); }
  static EW_INLINE Vec LoadPart(const uint16_t* p, int64_t n) {
    uint16_t part[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) part[i] = p[i];
    return LoadVec(part);
  }
};

// Transposes src [columns <= kLanes, k] into out[p * out_stride + column]; out gets `width`
// columns.
template <typename Source>
EW_INLINE void TransposeStrip(const typename Source::Element* src, int64_t ld, int64_t columns,
                              int64_t k, float* out, int64_t out_stride, int64_t width) {
  for (int64_t p = 0; p < k; p += kLanes) {
    const int64_t steps = k - p < kLanes ? k - p : kLanes;
    Vec r[kLanes];
    if (columns == kLanes && steps == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) r[i] = Source::LoadVec(src + i * ld + p);
    } else {
      for (int i = 0; i < kLanes; ++i) {
        r[i] = i < columns ? Source::LoadPart(src + i * ld + p, steps) : Set1(0.0f);
      }
    }
    Transpose(r);
    float* o = out + p * out_stride;
    if (width == kLanes && steps == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) Store(o + i * out_stride, r[i]);
    } else {
      for (int64_t i = 0; i < steps; ++i) StoreN(o + i * out_stride, r[i], width);
    }
  }
}

template <typename Source>
void PackBTransposedT(const void* src, int64_t ld, int64_t n, int64_t k, float* out) {
  const auto* s = static_cast<const typename Source::Element*>(src);
  for (int64_t j = 0; j < n; j += kNr, out += kNr * k) {
    for (int v = 0; v < kNv; ++v) {
      int64_t columns = n - j - v * kLanes;
      columns = columns < 0 ? 0 : columns > kLanes ? kLanes : columns;
      TransposeStrip<Source>(s + (j + v * kLanes) * ld, ld, columns, k, out + v * kLanes, kNr,
                             kLanes);
    }
  }
}

template <typename Source>
void PackBT(const void* src, int64_t ld, int64_t n, int64_t k, float* out) {
  const auto* s = static_cast<const typename Source::Element*>(src);
  // Row by row of the source, so that each of its cache lines is read once and in order.
  for (int64_t p = 0; p < k; ++p) {
    const typename Source::Element* row = s + p * ld;
    float* o = out + p * kNr;
    int64_t j = 0;
    for (; j + kNr <= n; j += kNr, o += kNr * k) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) Store(o + v * kLanes, Source::LoadVec(row + j + v * kLanes));
    }
    if (j == n) continue;
    for (int v = 0; v < kNv; ++v) {
      int64_t columns = n - j - v * kLanes;
      columns = columns < 0 ? 0 : columns > kLanes ? kLanes : columns;
      Store(o + v * kLanes, Source::LoadPart(row + j + v * kLanes, columns));
    }
  }
}

void PackBTransposed(DType dtype, const void* src, int64_t ld, int64_t n, int64_t k, float* out) {
  if (dtype == DType::kF16) {
    PackBTransposedT<F16Source<false>>(src, ld, n, k, out);
  } else if (dtype == DType::kBF16) {
    PackBTransposedT<F16Source<true>>(src, ld, n, k, out);
  } else {
    PackBTransposedT<F32Source>(src, ld, n, k, out);
  }
}

void PackB(DType dtype, const void* src, int64_t ld, int64_t n, int64_t k, float* out) {
  if (dtype == DType::kF16) {
    PackBT<F16Source<false>>(src, ld, n, k, out);
  } else if (dtype == DType::kBF16) {
    PackBT<F16Source<true>>(src, ld, n, k, out);
  } else {
    PackBT<F32Source>(src, ld, n, k, out);
  }
}

void PackA(ALayout layout, const float* src, int64_t ld, int64_t m, int64_t k, float* out) {
  for (int64_t i = 0; i < m; i += kMr, out += kMr * k) {
    const int64_t rows = m - i < kMr ? m - i : kMr;
    if (layout == ALayout::kRowMajor) {
      for (int64_t v = 0; v < rows; v += kLanes) {
        const int64_t columns = rows - v < kLanes ? rows - v : kLanes;
        const int64_t width = kMr - v < kLanes ? kMr - v : kLanes;
        TransposeStrip<F32Source>(src + (i + v) * ld, ld, columns, k, out + v, kMr, width);
      }
      continue;
    }
    for (int64_t p = 0; p < k; ++p) {
      const float* s = src + p * ld + i;
      float* o = out + p * kMr;
      for (int64_t v = 0; v < rows; v += kLanes) {
        const int64_t columns = rows - v < kLanes ? rows - v : kLanes;
        StoreN(o + v, LoadN(s + v, columns), columns);
      }
    }
  }
}

template <int kRows, int kColumns>
EW_INLINE void ThinTile(int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                        float alpha, float* c, int64_t ldc, bool add) {
  Vec acc[kRows][kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) acc[i][j] = Set1(0.0f);
  }
  int64_t p = 0;
  for (; p + kLanes <= k; p += kLanes) {
    Vec av[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) av[i] = Load(a + i * lda + p);
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      const Vec bv = Load(b + j * ldb + p);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) acc[i][j] = Fma(av[i], bv, acc[i][j]);
    }
  }
  if (p < k) {
    Vec av[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) av[i] = LoadN(a + i * lda + p, k - p);
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      const Vec bv = LoadN(b + j * ldb + p, k - p);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) acc[i][j] = Fma(av[i], bv, acc[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      float* out = c + i * ldc + j;
      const float sum = alpha * ReduceAdd(acc[i][j]);
      *out = add ? *out + sum : sum;
    }
  }
}

template <int kRows>
EW_INLINE void ThinRows(int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                        int64_t ldb, float alpha, float* c, int64_t ldc, bool add) {
  // 2 x 8 sums fit 32 registers, 2 x 4 fit 16.
  constexpr int kColumns = kMr >= 8 ? 8 : 4;
  int64_t j = 0;
  for (; j + kColumns <= n; j += kColumns) {
    ThinTile<kRows, kColumns>(k, a, lda, b + j * ldb, ldb, alpha, c + j, ldc, add);
  }
  for (; j < n; ++j) ThinTile<kRows, 1>(k, a, lda, b + j * ldb, ldb, alpha, c + j, ldc, add);
}

void MultiplyThin(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                  int64_t ldb, float alpha, float* c, int64_t ldc, bool add) {
  int64_t i = 0;
  for (; i + 2 <= m; i += 2)
    ThinRows<2>(n, k, a + i * lda, lda, b, ldb, alpha, c + i * ldc, ldc, add);
  if (i < m) ThinRows<1>(n, k, a + i * lda, lda, b, ldb, alpha, c + i * ldc, ldc, add);
}

int64_t FmaLoop(int64_t rounds) {
  // As many sums as the register tile has.
  constexpr int kSums = kMr * kNv;
  // Values the compiler cannot know, or it would see that all sums are one.
  float start[kSums];
  for (int i = 0; i < kSums; ++i) start[i] = static_cast<float>(i) * 0.01f;
  float unknown = 0.5f;
  __asm__ volatile("" : "+m"(unknown), "+m"(start));
  Vec sums[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sums[i] = Set1(start[i]);
  const Vec a = Set1(unknown);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) sums[i] = Fma(sums[i], a, a);
  }
#pragma GCC unroll 32
  for (int i = 1; i < kSums; ++i) sums[0] = sums[0] + sums[i];
  unknown = ReduceAdd(sums[0]);
  __asm__ volatile("" : : "m"(unknown));
  return rounds * kSums * kLanes * 2;
}

}  // namespace
}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
