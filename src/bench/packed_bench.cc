// Products with packed weights, forward and backward.
#include <cmath>
#include <cstring>
#include <memory>

#include "bench/suite.h"
#include "kernels/linear.h"
#include "kernels/packed/random_packed.h"

namespace edgewise::bench {
namespace {

using kernels::PackedFormat;
using kernels::PackedMatrix;
using kernels::Structure;

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
  if (group == 0) f.act_group = 0;
  return f;
}

std::vector<Form> Forms() {
  std::vector<Form> forms;
  for (const auto& [bits, name] :
       {std::pair{8, "q8"}, {6, "q6"}, {5, "q5"}, {4, "q4"}, {3, "q3"}, {2, "q2"}}) {
    forms.push_back({name, Make(bits, 0)});
  }
  forms.push_back({"q8_g128", Make(8, 128)});
  forms.push_back({"q4_g128", Make(4, 128)});
  forms.push_back({"q4_g64", Make(4, 64)});
  forms.push_back({"q4_g32", Make(4, 32)});
  forms.push_back({"q2_g64", Make(2, 64)});
  forms.push_back({"q4_g64_sparse50", Make(4, 64, Structure::kUnstructured)});
  forms.push_back({"q4_sparse50", Make(4, 0, Structure::kUnstructured)});
  forms.push_back({"q8_g128_sparse50", Make(8, 128, Structure::kUnstructured)});
  forms.push_back({"q4_g64_2:4", Make(4, 64, Structure::kNM, 2, 4)});
  forms.push_back({"q4_2:4", Make(4, 0, Structure::kNM, 2, 4)});
  forms.push_back({"q4_g64_1:4", Make(4, 64, Structure::kNM, 1, 4)});
  forms.push_back({"q4_g64_block50", Make(4, 64, Structure::kBlock, 0, 0, 64)});
  forms.push_back({"q4_block50", Make(4, 0, Structure::kBlock, 0, 0, 64)});
  return forms;
}

// The matrix that was asked for last: Google Benchmark calls each function several times.
struct Cache {
  std::string key;
  std::unique_ptr<PackedMatrix> matrix;

  const PackedMatrix* Get(const std::string& name, PackedFormat f, LinearShape s,
                          benchmark::State& state) {
    f.rows = s.out;
    f.cols = s.in;
    const std::string wanted = name + "/" + std::to_string(s.out) + "x" + std::to_string(s.in);
    if (wanted == key) return matrix.get();
    Result<PackedMatrix> made = kernels::RandomPackedMatrix(f, 1, 0.5);
    if (!made.ok()) {
      state.SkipWithError(made.status().message().c_str());
      return nullptr;
    }
    matrix = std::make_unique<PackedMatrix>(std::move(*made));
    key = wanted;
    return matrix.get();
  }
};

void Forward(benchmark::State& state, const Suite& suite, const PackedMatrix& w, int64_t m) {
  const size_t bytes = w.bytes().size();
  // Few rows read copies in turn, so that weights come from memory, not from a cache.
  const size_t copies = m <= 16 ? std::max<size_t>(1, (size_t{256} << 20) / bytes) : 1;
  std::vector<AlignedBuffer> buffers;
  std::vector<PackedMatrix> all = {w};
  for (size_t i = 1; i < copies; ++i) {
    buffers.emplace_back(bytes);
    std::memcpy(buffers.back().data(), w.bytes().data(), bytes);
    auto copy = PackedMatrix::FromBytes({buffers.back().as<std::byte>(), bytes}, nullptr,
                                        kernels::Verify::kHeader);
    if (!copy.ok()) return state.SkipWithError(copy.status().message().c_str());
    all.push_back(std::move(*copy));
  }
  const auto xs = RandomFloats(m * w.cols());
  std::vector<float> y(static_cast<size_t>(m * w.rows()));
  const Work work = {2.0 * static_cast<double>(m * w.rows() * w.cols()), static_cast<double>(bytes),
                     m == 1 ? Limit::kRead : Limit::kInt8};
  size_t next = 0;
  Time(state, suite, work, [&] {
    kernels::LinearForward(suite.ctx, m, xs.data(), w.cols(), all[next].Ref(), nullptr, y.data(),
                           w.rows());
    next = (next + 1) % all.size();
  });
  state.counters["bits_per_weight"] = w.bits_per_weight();
}

void Backward(benchmark::State& state, const Suite& suite, const PackedMatrix& w, int64_t m,
              bool integer) {
  kernels::LinearBackwardOptions options;
  options.mode = integer ? kernels::BackwardMode::kInteger : kernels::BackwardMode::kExact;
  FloatBuffer dy(m * w.rows()), dx(m * w.cols());
  Rng rng(2, RngStream::kTest);
  for (int64_t i = 0; i < m * w.rows(); ++i) dy[i] = static_cast<float>(rng.NextNormal());
  const Work work = {2.0 * static_cast<double>(m * w.rows() * w.cols()),
                     static_cast<double>(w.bytes().size()), Limit::kFp32};
  Time(state, suite, work, [&] {
    kernels::LinearBackwardInput(suite.ctx, m, dy.data(), w.rows(), w.Ref(), dx.data(), w.cols(),
                                 kernels::Accumulate::kOverwrite, options);
  });
  if (!integer) return;
  FloatBuffer exact(m * w.cols());
  kernels::LinearBackwardInput(suite.ctx, m, dy.data(), w.rows(), w.Ref(), exact.data(), w.cols());
  double error = 0, norm = 0, dot = 0, other = 0;
  for (int64_t i = 0; i < m * w.cols(); ++i) {
    error += std::pow(static_cast<double>(dx[i]) - exact[i], 2);
    norm += std::pow(static_cast<double>(exact[i]), 2);
    other += std::pow(static_cast<double>(dx[i]), 2);
    dot += static_cast<double>(dx[i]) * exact[i];
  }
  state.counters["relative_error"] = std::sqrt(error / norm);
  state.counters["cosine"] = dot / std::sqrt(norm * other);
}

// A product, or an integer gradient, that takes a LoRA term of rank 8 along; in turn with one that
// the term follows as a product of its own (`apart_seconds`).
void Adapted(benchmark::State& state, const Suite& suite, const PackedMatrix& w, int64_t m,
             bool backward) {
  constexpr int64_t kRank = 8;
  const int64_t out = backward ? w.cols() : w.rows(), in = backward ? w.rows() : w.cols();
  const auto x = RandomFloats(m * in), inner = RandomFloats(m * kRank),
             factor = RandomFloats(kRank * out);
  std::vector<float> y(static_cast<size_t>(m * out));
  kernels::LinearBackwardOptions options;
  options.mode = kernels::BackwardMode::kInteger;
  kernels::LowRank term = {kRank, 0.5f, inner.data(), factor.data()};
  if (backward) term = {kRank, 0.5f, inner.data(), nullptr, factor.data(), out};
  const auto product = [&](const kernels::LowRank& along) {
    constexpr auto kOverwrite = kernels::Accumulate::kOverwrite;
    if (backward) {
      kernels::LinearBackwardInput(suite.ctx, m, x.data(), in, w.Ref(), y.data(), out, kOverwrite,
                                   options, along);
    } else {
      kernels::LinearForward(suite.ctx, m, x.data(), in, w.Ref(), nullptr, y.data(), out,
                             kOverwrite, along);
    }
  };
  const double operations = 2.0 * static_cast<double>(m * (in * out + kRank * out));
  const Work work = {operations, static_cast<double>(w.bytes().size()),
                     backward ? Limit::kFp32 : Limit::kInt8};
  double apart = 1e30;
  Time(
      state, suite, work, [&] { product(term); },
      [&] {
        const double start = Clock(suite.ctx);
        product({});
        kernels::LowRankAdd(suite.ctx, m, out, term, y.data(), out);
        apart = std::min(apart, Clock(suite.ctx) - start);
      });
  state.counters["apart_seconds"] = apart;
}

}  // namespace

void RegisterPacked(const Suite& suite) {
  const auto cache = std::make_shared<Cache>();
  for (const ModelShape& model : suite.shapes) {
    for (const LinearShape& s : Linears(model)) {
      const std::string tail = std::string("/") + model.name + "/" + s.name;
      for (const Form& form : Forms()) {
        const auto add = [&](const std::string& name, auto fn) {
          suite.Add(name, [suite, cache, form, s, fn](benchmark::State& state) {
            const PackedMatrix* w = cache->Get(form.name, form.format, s, state);
            if (w != nullptr) fn(state, suite, *w);
          });
        };
        for (const int64_t m : {1, 4, 512}) {
          add(std::string("forward/") + form.name + "/m" + std::to_string(m) + tail,
              [m](benchmark::State& state, const Suite& in, const PackedMatrix& w) {
                Forward(state, in, w, m);
              });
        }
        for (const bool integer : {false, true}) {
          add(std::string(integer ? "backward_integer/" : "backward/") + form.name + "/m512" + tail,
              [integer](benchmark::State& state, const Suite& in, const PackedMatrix& w) {
                Backward(state, in, w, 512, integer);
              });
        }
        for (const bool backward : {false, true}) {
          add(std::string(backward ? "backward_integer_lora8/" : "forward_lora8/") + form.name +
                  "/m512" + tail,
              [backward](benchmark::State& state, const Suite& in, const PackedMatrix& w) {
                Adapted(state, in, w, 512, backward);
              });
        }
      }
    }
  }
}

}  // namespace edgewise::bench
