#include "kernels/peaks.h"

#include <time.h>

#include <algorithm>

#include "kernels/dot_loop.h"
#include "kernels/kernel_table.h"

namespace edgewise::kernels {
namespace {

constexpr int kRuns = 7;

// With one thread a clock that stands still while others run: their work is not our limit.
double Now(const ExecContext& ctx) {
  timespec t;
  clock_gettime(ctx.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Operations per nanosecond of `loop` on every thread at once; it is given rounds that take about
// 10 ms and says how many operations they are.
template <typename Loop>
double BestRate(ExecContext& ctx, Loop loop) {
  int64_t rounds = 1000;
  for (;;) {
    const double start = Now(ctx);
    loop(rounds);
    if (Now(ctx) - start > 0.01 || rounds > int64_t{1} << 40) break;
    rounds *= 2;
  }
  double best = 0;
  std::vector<double> operations(static_cast<size_t>(ctx.threads()));
  for (int run = 0; run < kRuns; ++run) {
    const double start = Now(ctx);
    ctx.pool().Run(ctx.threads(), [&](int64_t task, int) {
      operations[static_cast<size_t>(task)] = static_cast<double>(loop(rounds));
    });
    double sum = 0;
    for (double o : operations) sum += o;
    best = std::max(best, sum / (Now(ctx) - start) * 1e-9);
  }
  return best;
}

DotLoopFn DotLoop(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvxVnni:
      return avxvnni::DotLoop;
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Vbmi2:
      return avx512vnni::DotLoop;
#elif defined(__aarch64__)
    case Isa::kNeonDot:
      return neondot::DotLoop;
    case Isa::kNeonI8mm:
      return neoni8mm::DotLoop;
#endif
    default:
      return nullptr;
  }
}

}  // namespace

double MeasureFp32Peak(ExecContext& ctx) {
  const KernelTable& t = TableFor(ctx.isa());
  return BestRate(ctx, [&](int64_t rounds) { return t.fma_loop(rounds); });
}

double MeasureInt8Peak(ExecContext& ctx) {
  const DotLoopFn loop = DotLoop(ctx.isa());
  return loop == nullptr ? 0 : BestRate(ctx, loop);
}

double MeasureReadBandwidth(ExecContext& ctx) {
  const KernelTable& t = TableFor(ctx.isa());
  const int64_t bytes =
      std::clamp<int64_t>(4 * ctx.cpu().l3_bytes, int64_t{64} << 20, int64_t{256} << 20);
  FloatBuffer buffer(bytes / static_cast<int64_t>(sizeof(float)));
  // Long stretches: at the start of each the processor finds out anew what to fetch ahead.
  constexpr int64_t kGrain = 1 << 22;
  ctx.ParallelFor(buffer.size(), kGrain, [&](int64_t begin, int64_t end, int) {
    std::fill(buffer.data() + begin, buffer.data() + end, 1.0f);
  });
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const double start = Now(ctx);
    ctx.ParallelFor(buffer.size(), kGrain, [&](int64_t begin, int64_t end, int) {
      // Every element is read; the answer is known to be true, but not to the compiler.
      if (!t.finite(end - begin, buffer.data() + begin)) buffer[begin] = 0;
    });
    best = std::max(best, static_cast<double>(bytes) / (Now(ctx) - start) * 1e-9);
  }
  return best;
}

Peaks MeasurePeaks(ExecContext& ctx) {
  return {MeasureFp32Peak(ctx), MeasureInt8Peak(ctx), MeasureReadBandwidth(ctx)};
}

}  // namespace edgewise::kernels
