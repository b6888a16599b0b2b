#include "kernels/gemm_driver.h"

#include <algorithm>

#include "base/checked.h"

namespace edgewise::kernels {
namespace {

// Columns of one task: its packed block of B (256 KiB at 256 columns) stays in a level 2 cache.
constexpr int64_t kMaxColumns = 256;
// Up to here A is read in place: packing it would cost more than it saves.
constexpr int64_t kDirectRows = 16;
// Packed A of one round; more rows than this allows for one block of k are cut into rounds, too.
constexpr int64_t kPackedABytes = 8 << 20;

struct Partition {
  int64_t columns;  // per task, a multiple of nr
  int64_t rows;     // per task, a multiple of mr
};

// Wide tasks pack B least often; enough of them keep all threads busy to the end.
Partition Choose(int64_t m, int64_t n, int threads, const KernelTable& t) {
  const int64_t want = threads == 1 ? 1 : 4 * threads;
  Partition p;
  p.columns =
      std::clamp(RoundUp(CeilDiv(n, want), t.nr), int64_t{t.nr}, RoundUp(kMaxColumns, t.nr));
  const int64_t column_tasks = CeilDiv(n, p.columns);
  const int64_t row_tasks =
      std::clamp(CeilDiv(want, 2 * column_tasks), int64_t{1}, CeilDiv(m, int64_t{4} * t.mr));
  p.rows = RoundUp(CeilDiv(m, row_tasks), t.mr);
  return p;
}

void ScaleOnly(ExecContext& ctx, int64_t m, int64_t n, float* c, int64_t ldc, Accumulate acc) {
  if (acc == Accumulate::kAdd) return;
  ctx.ParallelFor(m, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) std::fill_n(c + i * ldc, n, 0.0f);
  });
}

}  // namespace

void Gemm(ExecContext& ctx, int64_t m, int64_t n, int64_t k, float alpha, const GemmA& a,
          PackBFn pack_b, float* c, int64_t ldc, Accumulate acc) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0) return ScaleOnly(ctx, m, n, c, ldc, acc);
  const KernelTable& t = TableFor(ctx.isa());
  const bool direct = a.layout == ALayout::kRowMajor && m <= kDirectRows;
  const int64_t block_bytes = kGemmKBlock * static_cast<int64_t>(sizeof(float));
  const int64_t max_rows = kPackedABytes / block_bytes / t.mr * t.mr;
  for (int64_t m0 = 0; m0 < m; m0 += max_rows) {
    const int64_t mm = std::min(max_rows, m - m0);
    const int64_t padded = RoundUp(mm, t.mr);
    // Blocks of k whose packed A fits at once.
    const int64_t round =
        direct ? k : std::max<int64_t>(1, kPackedABytes / (padded * block_bytes)) * kGemmKBlock;
    const Partition part = Choose(mm, n, ctx.threads(), t);
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
        auto* packed_b = static_cast<float*>(
            ctx.Scratch(worker, static_cast<size_t>(RoundUp(nn, t.nr) * block_bytes)));
        for (int64_t k0 = r0; k0 < r1; k0 += kGemmKBlock) {
          const int64_t kk = std::min(kGemmKBlock, r1 - k0);
          pack_b(j0, nn, k0, kk, packed_b);
          const BPanels b = {packed_b, kk * t.nr, t.nr};
          const bool add = acc == Accumulate::kAdd || k0 > 0;
          float* out = c + (m0 + i0) * ldc + j0;
          if (direct) {
            t.multiply(rows, nn, kk, ALayout::kRowMajor, a.data + (m0 + i0) * a.ld + k0, a.ld, b,
                       alpha, out, ldc, add);
          } else {
            t.multiply(rows, nn, kk, ALayout::kPanels, packed_a + padded * (k0 - r0) + i0 * kk,
                       kk * t.mr, b, alpha, out, ldc, add);
          }
        }
      });
    }
  }
}

}  // namespace edgewise::kernels
