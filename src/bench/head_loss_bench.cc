// LM head and cross-entropy on 512 tokens, fused and (for comparison) with all logits in memory.
#include <optional>

#include "bench/suite.h"
#include "exec/memory.h"
#include "kernels/kernel_table.h"
#include "kernels/loss.h"
#include "kernels/matmul.h"
#include "kernels/packed/random_packed.h"

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

// What the process grows by in a first call, in MiB: a context keeps its working memory.
double ExtraMemory(const Suite& suite, const kernels::HeadLossArgs& args) {
  ExecOptions options;
  options.threads = suite.ctx.threads();
  const Isa isa = suite.ctx.isa();
  options.isa = &isa;
  Result<std::unique_ptr<ExecContext>> fresh = ExecContext::Create(options);
  if (!fresh.ok()) return 0;
  const int64_t before = ReadProcessMemory().rss_bytes;
  benchmark::DoNotOptimize(kernels::HeadLoss(**fresh, args));
  return static_cast<double>(ReadProcessMemory().rss_bytes - before) / (1 << 20);
}

// Loss and gradient of the hidden states, or the loss alone; head in fp32 or packed to `bits`.
void Fused(benchmark::State& state, const Suite& suite, const ModelShape& model, int bits,
           float skip_below, bool gradient, bool integer) {
  Problem p(model);
  kernels::HeadLossArgs args;
  args.tokens = kTokens;
  args.hidden = p.x.data();
  args.head = kernels::WeightRef::Dense(p.w.data(), p.vocab, p.hidden);
  std::optional<kernels::PackedMatrix> packed;
  if (bits > 0) {
    kernels::PackedFormat f;
    f.rows = p.vocab;
    f.cols = p.hidden;
    f.bits = bits;
    f.group = bits == 8 ? 0 : 64;
    Result<kernels::PackedMatrix> made = kernels::RandomPackedMatrix(f, 1, 1.0);
    if (!made.ok()) return state.SkipWithError(made.status().message().c_str());
    packed = std::move(*made);
    args.head = packed->Ref();
  }
  args.targets = p.targets.data();
  args.grad_scale = gradient ? 1.0f : 0.0f;
  args.dhidden = p.dx.data();
  args.skip_below = skip_below;
  if (integer) args.backward = kernels::BackwardMode::kInteger;
  const double product = 2.0 * kTokens * static_cast<double>(p.vocab * p.hidden);
  const Work work = {gradient ? 2 * product : product,
                     4.0 * static_cast<double>(p.vocab * p.hidden), Limit::kFp32};
  Time(state, suite, work, [&] { benchmark::DoNotOptimize(kernels::HeadLoss(suite.ctx, args)); });
  state.counters["extra_mib"] = ExtraMemory(suite, args);
}

// The plain way: [tokens, vocab] logits, softmax in place, gradient by a second product. Threads
// share the softmax by rows.
void Unfused(benchmark::State& state, const Suite& suite, const ModelShape& model) {
  Problem p(model);
  ExecContext& ctx = suite.ctx;
  std::vector<float> z(static_cast<size_t>(kTokens * p.vocab));
  const auto head = kernels::WeightRef::Dense(p.w.data(), p.vocab, p.hidden);
  const kernels::KernelTable& table = kernels::TableFor(ctx.isa());
  const Work work = {4.0 * kTokens * static_cast<double>(p.vocab * p.hidden),
                     8.0 * static_cast<double>(p.vocab * p.hidden), Limit::kFp32};
  Time(state, suite, work, [&] {
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
  });
}

}  // namespace

void RegisterHeadLoss(const Suite& suite) {
  for (const ModelShape& model : suite.shapes) {
    const auto add = [&](const std::string& name, int bits, float skip_below, bool gradient,
                         bool integer = false) {
      suite.Add("head_loss/" + name + "/m512/" + model.name,
                [suite, model, bits, skip_below, gradient, integer](benchmark::State& s) {
                  Fused(s, suite, model, bits, skip_below, gradient, integer);
                });
    };
    for (const auto& [bits, form] : {std::pair{0, "fp32"}, {8, "q8"}, {4, "q4_g64"}}) {
      add(std::string("loss_only/") + form, bits, 0, false);
      add(std::string("exact/") + form, bits, 0, true);
      add(std::string("skip_2^-12/") + form, bits, 0x1p-12f, true);
      if (bits > 0) add(std::string("integer/") + form, bits, 0, true, true);
    }
    suite.Add(std::string("head_loss/unfused/fp32/m512/") + model.name,
              [suite, model](benchmark::State& s) { Unfused(s, suite, model); });
  }
}

}  // namespace edgewise::bench
