// The gradient of a linear layer's input through 4-bit weights, dX = dY W: ggml's out_prod on Q4_0
// (what llama.cpp trains through) and ours on the same blocks, exact and integer, in turn.
//
//   cmake --preset release -DEDGEWISE_GGML=LLAMA_CPP_CHECKOUT   (built in its folder `build`)
//   cmake --build build/release --target ggml_out_prod
//   build/release/bench/compare/ggml_out_prod [OUT IN TOKENS THREADS]
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/rng.h"
#include "kernels/linear.h"
#include "kernels/packed/gguf_blocks.h"

namespace {

using namespace edgewise;

double Seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// The best of a few runs, as other work on the machine only makes them slower.
template <typename Fn>
double Best(int runs, Fn fn) {
  fn();
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const double start = Seconds();
    fn();
    best = std::min(best, Seconds() - start);
  }
  return best;
}

std::vector<float> Normal(int64_t n, uint64_t seed, float scale) {
  Rng rng(seed, RngStream::kTest);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = scale * static_cast<float>(rng.NextNormal());
  return v;
}

double RelativeError(const std::vector<float>& a, const float* b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error / norm);
}

int Run(int64_t out, int64_t in, int64_t tokens, int threads) {
  // ggml: W as rows of Q4_0 blocks [out][in]; out_prod wants dY as [tokens] columns.
  const size_t bytes = static_cast<size_t>(out * in + 2 * tokens * (out + in)) * 8 + (64u << 20);
  ggml_context* g = ggml_init({bytes, nullptr, false});
  if (g == nullptr) return 1;
  ggml_tensor* w = ggml_new_tensor_2d(g, GGML_TYPE_Q4_0, in, out);
  ggml_tensor* dy = ggml_new_tensor_2d(g, GGML_TYPE_F32, out, tokens);
  const std::vector<float> weights = Normal(out * in, 1, 0.02f), grad = Normal(out * tokens, 2, 1);
  ggml_quantize_chunk(GGML_TYPE_Q4_0, weights.data(), w->data, 0, out, in, nullptr);
  std::copy(grad.begin(), grad.end(), static_cast<float*>(dy->data));
  ggml_tensor* dx = ggml_out_prod(g, w, ggml_transpose(g, dy));
  ggml_cgraph* graph = ggml_new_graph(g);
  ggml_build_forward_expand(graph, dx);
  const double theirs = Best(3, [&] { ggml_graph_compute_with_ctx(g, graph, threads); });

  ExecOptions options;
  options.threads = threads;
  Result<std::unique_ptr<ExecContext>> ctx = ExecContext::Create(options);
  Result<kernels::PackedMatrix> packed = kernels::PackGguf(
      kernels::GgufBlock::kQ4_0, {static_cast<const std::byte*>(w->data), ggml_nbytes(w)}, out, in);
  if (!ctx.ok() || !packed.ok()) return 1;
  std::vector<float> ours(static_cast<size_t>(tokens * in));
  std::printf("dX = dY W, W %ld x %ld in Q4_0, %ld tokens, %d threads\n", static_cast<long>(out),
              static_cast<long>(in), static_cast<long>(tokens), threads);
  const double gflop = 2e-9 * static_cast<double>(out * in * tokens);
  std::printf("  %-20s %9.2f ms %8.1f GFLOP/s\n", "ggml out_prod", 1e3 * theirs, gflop / theirs);
  for (const auto mode : {kernels::BackwardMode::kExact, kernels::BackwardMode::kInteger}) {
    kernels::LinearBackwardOptions how;
    how.mode = mode;
    const double seconds = Best(7, [&] {
      kernels::LinearBackwardInput(**ctx, tokens, grad.data(), out, packed->Ref(), ours.data(), in,
                                   kernels::Accumulate::kOverwrite, how);
    });
    std::printf("  %-20s %9.2f ms %8.1f GFLOP/s  %.1f x, off by %.2g of the norm of ggml's\n",
                mode == kernels::BackwardMode::kExact ? "edgewise, exact" : "edgewise, integer",
                1e3 * seconds, gflop / seconds, theirs / seconds,
                RelativeError(ours, static_cast<const float*>(dx->data)));
  }
  ggml_free(g);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto arg = [&](int i, int64_t other) { return argc > i ? std::atoll(argv[i]) : other; };
  return Run(arg(1, 5632), arg(2, 2048), arg(3, 512), static_cast<int>(arg(4, 2)));
}
