// Products with packed weights against the peaks of this machine, measured in the same run.
//   build/release/packed_bench --benchmark_filter=forward/m512 [--threads=2]
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "bench/peaks.h"
#include "kernels/linear.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/test_matrices.h"

namespace edgewise::kernels {
namespace {

struct Shape {
  int64_t out, in;
};
const Shape kGemmShapes[] = {{576, 576},   {1536, 576},  {576, 1536}, {2048, 2048},
                             {5632, 2048}, {2048, 5632}, {4096, 4096}};

struct Form {
  const char* name;
  PackedFormat format;
};

PackedFormat Make(int bits, int group, Structure structure = Structure::kDense, int n = 0,
                  int m = 0, int block = 0) {
  PackedFormat f;
  f.bits = bits;
  f.group = group;
  f.structure = structure;
  f.nm_n = n;
  f.nm_m = m;
  f.block_cols = block;
  return f;
}

std::vector<Form> Forms() {
  std::vector<Form> forms;
  for (const auto& [bits, name] :
       {std::pair{8, "q8"}, {6, "q6"}, {5, "q5"}, {4, "q4"}, {3, "q3"}, {2, "q2"}}) {
    forms.push_back({name, Make(bits, 0)});
  }
  for (Form& f : forms) f.format.act_group = 0;
  forms.push_back({"q8_g128", Make(8, 128)});
  forms.push_back({"q4_g128", Make(4, 128)});
  forms.push_back({"q4_g64", Make(4, 64)});
  forms.push_back({"q4_g32", Make(4, 32)});
  forms.push_back({"q2_g64", Make(2, 64)});
  forms.push_back({"q4_g64_sparse50", Make(4, 64, Structure::kUnstructured)});
  forms.push_back({"q8_g128_sparse50", Make(8, 128, Structure::kUnstructured)});
  forms.push_back({"q4_g64_2:4", Make(4, 64, Structure::kNM, 2, 4)});
  forms.push_back({"q4_g64_1:4", Make(4, 64, Structure::kNM, 1, 4)});
  forms.push_back({"q4_g64_block50", Make(4, 64, Structure::kBlock, 0, 0, 64)});
  return forms;
}

struct Bench {
  std::unique_ptr<ExecContext> ctx;
  double int8_peak = 0, fp32_peak = 0, bandwidth = 0;
};

PackedMatrix MakeMatrix(PackedFormat f, Shape s) {
  f.rows = s.out;
  f.cols = s.in;
  Rng rng(1, RngStream::kTest);
  // Weights with the distribution of real ones, so that errors of gradients mean something.
  const RandomPacked pattern = MakeRandomPacked(f, rng);
  std::vector<float> w(pattern.q.size());
  for (float& x : w) x = static_cast<float>(rng.NextNormal());
  return Pack(f, w.data(), s.in, pattern.keep.empty() ? nullptr : pattern.keep.data()).value();
}

void Forward(benchmark::State& state, Bench& b, PackedFormat f, Shape s, int64_t m) {
  const PackedMatrix w = MakeMatrix(f, s);
  // Decoding reads copies in turn, so that weights come from memory, not from the cache.
  const int64_t copies =
      m <= 16 ? std::max<int64_t>(1, (int64_t{256} << 20) / static_cast<int64_t>(w.bytes().size()))
              : 1;
  std::vector<AlignedBuffer> buffers;
  std::vector<PackedMatrix> all;
  for (int64_t i = 0; i < copies; ++i) {
    buffers.emplace_back(w.bytes().size());
    std::memcpy(buffers.back().data(), w.bytes().data(), w.bytes().size());
    all.push_back(PackedMatrix::FromBytes({buffers.back().as<std::byte>(), w.bytes().size()},
                                          nullptr, Verify::kHeader)
                      .value());
  }
  FloatBuffer xs(m * s.in), y(m * s.out);
  Rng rng(2, RngStream::kTest);
  for (int64_t i = 0; i < m * s.in; ++i) xs[i] = rng.NextFloat() - 0.5f;
  size_t next = 0;
  for (auto _ : state) {
    LinearForward(*b.ctx, m, xs.data(), s.in, all[next].Ref(), nullptr, y.data(), s.out);
    next = (next + 1) % all.size();
    benchmark::DoNotOptimize(y.data());
  }
  const double ops = 2.0 * static_cast<double>(m * s.out * s.in);
  const double runs = static_cast<double>(state.iterations());
  const auto rate = benchmark::Counter::kIsRate;
  state.counters["GOPs"] = benchmark::Counter(ops * runs * 1e-9, rate);
  state.counters["int8_peak"] = benchmark::Counter(ops * runs / b.int8_peak, rate);
  const double bytes = static_cast<double>(w.bytes().size());
  state.counters["GB/s"] = benchmark::Counter(bytes * runs * 1e-9, rate);
  state.counters["bandwidth"] = benchmark::Counter(bytes * runs / b.bandwidth, rate);
  state.counters["bits"] = w.bits_per_weight();
}

void Backward(benchmark::State& state, Bench& b, PackedFormat f, Shape s, int64_t m,
              LinearBackwardOptions options) {
  const PackedMatrix w = MakeMatrix(f, s);
  FloatBuffer dy(m * s.out), dx(m * s.in);
  Rng rng(2, RngStream::kTest);
  for (int64_t i = 0; i < m * s.out; ++i) dy[i] = static_cast<float>(rng.NextNormal());
  for (auto _ : state) {
    LinearBackwardInput(*b.ctx, m, dy.data(), s.out, w.Ref(), dx.data(), s.in,
                        Accumulate::kOverwrite, options);
    benchmark::DoNotOptimize(dx.data());
  }
  if (options.mode == BackwardMode::kInteger) {
    FloatBuffer exact(m * s.in);
    LinearBackwardInput(*b.ctx, m, dy.data(), s.out, w.Ref(), exact.data(), s.in);
    double error = 0, norm = 0, dot = 0, other = 0;
    for (int64_t i = 0; i < m * s.in; ++i) {
      error += std::pow(static_cast<double>(dx[i]) - exact[i], 2);
      norm += std::pow(static_cast<double>(exact[i]), 2);
      other += std::pow(static_cast<double>(dx[i]), 2);
      dot += static_cast<double>(dx[i]) * exact[i];
    }
    state.counters["relative_error"] = std::sqrt(error / norm);
    state.counters["cosine"] = dot / std::sqrt(norm * other);
  }
  const double ops = 2.0 * static_cast<double>(m * s.out * s.in * state.iterations());
  state.counters["GFLOPs"] = benchmark::Counter(ops * 1e-9, benchmark::Counter::kIsRate);
  state.counters["fp32_peak"] = benchmark::Counter(ops / b.fp32_peak, benchmark::Counter::kIsRate);
}

int Main(int argc, char** argv) {
  ExecOptions exec;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--threads=", 10) == 0) {
      exec.threads = std::atoi(argv[i] + 10);
    } else {
      argv[kept++] = argv[i];
    }
  }
  Result<std::unique_ptr<ExecContext>> ctx = ExecContext::Create(exec);
  if (!ctx.ok()) {
    std::fprintf(stderr, "%s\n", ctx.status().message().c_str());
    return 1;
  }
  Bench b;
  b.ctx = std::move(*ctx);
  b.int8_peak = bench::Int8Peak(*b.ctx);
  b.fp32_peak = bench::Fp32Peak(*b.ctx);
  b.bandwidth = bench::ReadBandwidth(*b.ctx);
  std::fprintf(stderr, "%s, %d threads, %s: int8 %.0f GOP/s, fp32 %.0f GFLOP/s, read %.1f GB/s\n",
               b.ctx->cpu().name.c_str(), b.ctx->threads(),
               std::string(IsaName(b.ctx->isa())).c_str(), b.int8_peak * 1e-9, b.fp32_peak * 1e-9,
               b.bandwidth * 1e-9);
  const auto add = [&b](const std::string& name, std::function<void(benchmark::State&)> fn) {
    auto* registered = benchmark::RegisterBenchmark(name.c_str(), std::move(fn));
    // As in bench/peaks.h: processor time with one thread, else wall time.
    if (b.ctx->threads() > 1) registered->UseRealTime();
  };
  for (const Form& form : Forms()) {
    const PackedFormat f = form.format;
    for (const Shape s : kGemmShapes) {
      const std::string shape = std::to_string(s.out) + "x" + std::to_string(s.in);
      for (const int64_t m : {int64_t{1}, int64_t{4}, int64_t{512}}) {
        add("forward/m" + std::to_string(m) + "/" + form.name + "/" + shape,
            [&b, f, s, m](benchmark::State& st) { Forward(st, b, f, s, m); });
      }
      for (const bool integer : {false, true}) {
        LinearBackwardOptions options;
        options.mode = integer ? BackwardMode::kInteger : BackwardMode::kExact;
        add(std::string("backward/") + (integer ? "integer/" : "exact/") + form.name + "/" + shape,
            [&b, f, s, options](benchmark::State& st) { Backward(st, b, f, s, 512, options); });
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace edgewise::kernels

int main(int argc, char** argv) { return edgewise::kernels::Main(argc, argv); }
