#include "kernels/gemm_driver.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "base/checked.h"

namespace edgewise::kernels {
namespace {

// Packed A of one round; more rows than this allows for one block of k are cut into rounds, too.
constexpr int64_t kPackedABytes = 8 << 20;

struct Partition {
  int64_t columns;  // per task, a multiple of nr
  int64_t rows;     // per task, a multiple of mr
};

// Wide tasks walk over A least often, but their packed block of B must stay in half of the level 2
// cache; and no thread should wait for another at the end.
Partition Choose(int64_t m, int64_t n, const ExecContext& ctx, const KernelTable& t) {
  const int64_t threads = ctx.threads();
  constexpr int64_t kMaxColumns = 512;
  const int64_t block_row = kGemmKBlock * static_cast<int64_t>(sizeof(float));
  const int64_t max_columns = std::clamp<int64_t>(ctx.cpu().l2_bytes / 2 / block_row / t.nr * t.nr,
                                                  t.nr, RoundUp(kMaxColumns, t.nr));
  const int64_t fewest = std::max<int64_t>(threads == 1 ? 1 : 2, CeilDiv(n, threads * max_columns));
  Partition best = {max_columns, 0};
  int64_t best_load = std::numeric_limits<int64_t>::max();
  for (int64_t per_thread = fewest; per_thread < fewest + 4; ++per_thread) {
    const int64_t columns = RoundUp(CeilDiv(n, per_thread * threads), t.nr);
    const int64_t load = CeilDiv(CeilDiv(n, columns), threads) * columns;
    if (load < best_load) best_load = load, best.columns = columns;
  }
  const int64_t row_tasks = std::clamp<int64_t>(
      threads == 1 ? 1 : CeilDiv(2 * threads, CeilDiv(n, best.columns)), 1, CeilDiv(m, 4 * t.mr));
  best.rows = RoundUp(CeilDiv(m, row_tasks), t.mr);
  return best;
}

// Few columns, all in one task: rows that give every thread several tasks, not so few that packing
// B for each would tell.
Partition Narrow(int64_t m, int64_t n, const ExecContext& ctx, const KernelTable& t) {
  constexpr int64_t kLeastRows = 64;
  const int64_t rows = CeilDiv(m, int64_t{4} * ctx.threads());
  return {RoundUp(n, t.nr), RoundUp(std::max(rows, kLeastRows), t.mr)};
}

void ScaleOnly(ExecContext& ctx, int64_t m, int64_t n, float* c, int64_t ldc, Accumulate acc) {
  if (acc == Accumulate::kAdd) return;
  ctx.ParallelFor(m, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) std::fill_n(c + i * ldc, n, 0.0f);
  });
}

}  // namespace

void Gemm(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const GemmA& a,
          PackBFn pack_b, float* c, int64_t ldc, Accumulate acc, GemmFewRows few, GemmGaps gaps,
          const LowRank& low_rank) {
  assert(low_rank.r == 0 || k > 0);
  assert(gaps == GemmGaps::kNone || few.k == kGemmKBlock);
  if (m <= 0 || n <= 0) return;
  if (k <= 0) return ScaleOnly(ctx, m, n, c, ldc, acc);
  const KernelTable& t = TableFor(ctx.isa());
  const bool few_rows = a.layout == ALayout::kRowMajor && m <= kGemmDirectRows;
  // A is used so seldom that packing it would cost as much as the product.
  const bool narrow = a.layout == ALayout::kRowMajor && !few_rows && n <= kGemmDirectColumns;
  const bool direct = few_rows || narrow;
  const int64_t block_bytes = kGemmKBlock * static_cast<int64_t>(sizeof(float));
  const int64_t max_rows = kPackedABytes / block_bytes / t.mr * t.mr;
  const int64_t rows_at_once = direct ? m : max_rows;
  for (int64_t m0 = 0; m0 < m; m0 += rows_at_once) {
    const int64_t mm = std::min(rows_at_once, m - m0);
    const int64_t padded = RoundUp(mm, t.mr);
    // Blocks of k whose packed A fits at once.
    const int64_t round =
        direct ? k : std::max<int64_t>(1, kPackedABytes / (padded * block_bytes)) * kGemmKBlock;
    const Partition part = few_rows ? Partition{RoundUp(few.columns, t.nr), mm}
                           : narrow ? Narrow(mm, n, ctx, t)
                                    : Choose(mm, n, ctx, t);
    const int64_t column_tasks = CeilDiv(n, part.columns), row_tasks = CeilDiv(mm, part.rows);
    for (int64_t r0 = 0; r0 < k; r0 += round) {
      const int64_t r1 = std::min(k, r0 + round);
      float* packed_a = nullptr;
      if (!direct) {
        packed_a = static_cast<float*>(
            ctx.SharedScratch(static_cast<size_t>(padded * (r1 - r0)) * sizeof(float)));
        const int64_t blocks = CeilDiv(r1 - r0, kGemmKBlock);
        const int64_t strip = int64_t{4} * t.mr;
        const int64_t strips = CeilDiv(mm, strip);
        ctx.pool().Run(strips * blocks, [&](int64_t task, int) {
          const int64_t k0 = r0 + task / strips * kGemmKBlock, i0 = task % strips * strip;
          const int64_t kk = std::min(kGemmKBlock, r1 - k0);
          const float* src = a.layout == ALayout::kRowMajor ? a.data + (m0 + i0) * a.ld + k0
                                                            : a.data + k0 * a.ld + m0 + i0;
          t.pack_a(a.layout, src, a.ld, std::min(strip, mm - i0), kk,
                   packed_a + padded * (k0 - r0) + i0 * kk);
        });
      }
      ctx.pool().Run(column_tasks * row_tasks, [&](int64_t task, int worker) {
        const int64_t j0 = task % column_tasks * part.columns;
        const int64_t i0 = task / column_tasks * part.rows;
        const int64_t nn = std::min(part.columns, n - j0), rows = std::min(part.rows, mm - i0);
        const int64_t pack_k = few_rows ? few.k : kGemmKBlock;
        const int64_t packed_floats =
            std::max(RoundUp(nn, t.nr) * std::min(pack_k, k), LowRankScratch(t, low_rank, nn));
        const int64_t masks = gaps == GemmGaps::kNone ? 0 : CeilDiv(nn, t.nr);
        auto* packed_b = static_cast<float*>(
            ctx.Scratch(worker, static_cast<size_t>(packed_floats) * sizeof(float) +
                                    static_cast<size_t>(masks) * sizeof(uint16_t)));
        auto* steps = masks == 0 ? nullptr : reinterpret_cast<uint16_t*>(packed_b + packed_floats);
        float* const out = c + (m0 + i0) * ldc + j0;
        int64_t packed_end = r0, packed_begin = r0;
        for (int64_t k0 = r0; k0 < r1; k0 += kGemmKBlock) {
          const int64_t kk = std::min(kGemmKBlock, r1 - k0);
          if (k0 == packed_end) {
            packed_begin = k0;
            packed_end = std::min(k0 + pack_k, r1);
            pack_b(j0, nn, k0, packed_end - k0, packed_b, steps);
          }
          const BPanels b = {packed_b + (k0 - packed_begin) * t.nr,
                             (packed_end - packed_begin) * t.nr, t.nr, steps};
          const bool add = acc == Accumulate::kAdd || k0 > 0;
          if (direct) {
            t.multiply(rows, nn, kk, ALayout::kRowMajor, a.data + (m0 + i0) * a.ld + k0, a.ld, b,
                       alpha, out, ldc, add);
          } else {
            t.multiply(rows, nn, kk, ALayout::kPanels, packed_a + padded * (k0 - r0) + i0 * kk,
                       kk * t.mr, b, alpha, out, ldc, add);
          }
        }
        if (r1 == k) AddLowRank(t, low_rank, m0 + i0, rows, j0, nn, packed_b, out, ldc);
      });
    }
  }
}

}  // namespace edgewise::kernels
