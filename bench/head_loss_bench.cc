// LM head and cross-entropy on 512 tokens, fused and (for comparison) with all logits in memory.
#include <algorithm>
#include <string>

#include "bench/setup.h"
#include "bench/shapes.h"
#include "kernels/kernel_table.h"
#include "kernels/loss.h"
#include "kernels/matmul.h"

namespace edgewise::bench {
namespace {

constexpr int64_t kTokens = 512;

struct Problem {
  explicit Problem(const ModelShape& m)
      : vocab(m.vocab),
        hidden(m.hidden),
        x(RandomFloats(kTokens * m.hidden)),
        w(RandomFloats(m.vocab * m.hidden, 0.02f)),
        dx(x.size()) {
    Rng rng(2, RngStream::kTest);
    for (int64_t t = 0; t < kTokens; ++t) {
      targets.push_back(static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(vocab))));
    }
  }
  int64_t vocab, hidden;
  std::vector<float> x, w, dx;
  std::vector<int32_t> targets;
};

void Fused(benchmark::State& state, ExecContext& ctx, const ModelShape& model, float skip_below,
           bool gradient) {
  Problem p(model);
  kernels::HeadLossArgs args;
  args.tokens = kTokens;
  args.hidden = p.x.data();
  args.head = kernels::WeightRef::Dense(p.w.data(), p.vocab, p.hidden);
  args.targets = p.targets.data();
  args.grad_scale = gradient ? 1.0f : 0.0f;
  args.dhidden = p.dx.data();
  args.skip_below = skip_below;
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) benchmark::DoNotOptimize(kernels::HeadLoss(ctx, args));
  const double product = 2.0 * kTokens * static_cast<double>(p.vocab * p.hidden);
  Report(state, gradient ? 2 * product : product, 4.0 * static_cast<double>(p.vocab * p.hidden),
         peak);
}

// The plain way: [tokens, vocab] logits, softmax in place, gradient by a second product. Threads
// share the softmax by rows.
void Unfused(benchmark::State& state, ExecContext& ctx, const ModelShape& model) {
  Problem p(model);
  std::vector<float> z(static_cast<size_t>(kTokens * p.vocab));
  const auto head = kernels::WeightRef::Dense(p.w.data(), p.vocab, p.hidden);
  const kernels::KernelTable& table = kernels::TableFor(ctx.isa());
  const double peak = kernels::MeasureFp32Peak(ctx);
  for (auto _ : state) {
    kernels::MatMulNT(ctx, kTokens, p.vocab, p.hidden, 1.0f, p.x.data(), p.hidden, head, z.data(),
                      p.vocab);
    ctx.ParallelFor(kTokens, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        float* row = z.data() + t * p.vocab;
        const float max = *std::max_element(row, row + p.vocab);
        for (int64_t v = 0; v < p.vocab; ++v) row[v] -= max;
        table.exp(p.vocab, row, row);
        float sum = 0;
        for (int64_t v = 0; v < p.vocab; ++v) sum += row[v];
        table.scale(p.vocab, 1.0f / sum, row);
        row[p.targets[static_cast<size_t>(t)]] -= 1;
      }
    });
    kernels::MatMulNN(ctx, kTokens, p.hidden, p.vocab, 1.0f, z.data(), p.vocab, head, p.dx.data(),
                      p.hidden);
  }
  Report(state, 4.0 * kTokens * static_cast<double>(p.vocab * p.hidden),
         8.0 * static_cast<double>(p.vocab * p.hidden), peak);
}

}  // namespace

void RegisterHeadLoss(ExecContext& ctx) {
  for (const ModelShape& model : ModelShapes()) {
    const std::string base = std::string(model.name) + "/head_loss/";
    auto add = [&](const char* name, auto fn) {
      benchmark::RegisterBenchmark((base + name).c_str(), fn)->UseRealTime();
    };
    add("loss_only", [&ctx, &model](benchmark::State& s) { Fused(s, ctx, model, 0, false); });
    add("exact", [&ctx, &model](benchmark::State& s) { Fused(s, ctx, model, 0, true); });
    add("skip_2^-12",
        [&ctx, &model](benchmark::State& s) { Fused(s, ctx, model, 0x1p-12f, true); });
    add("unfused", [&ctx, &model](benchmark::State& s) { Unfused(s, ctx, model); });
  }
}

}  // namespace edgewise::bench
