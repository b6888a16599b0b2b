// What a layer's linears see on calibration text: Hessians of their inputs, and the inputs
// themselves on some windows.
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "compress/layer_hessian.h"
#include "model/config.h"
#include "model/linear_observer.h"

namespace edgewise::compress {

// q, k and v see the same input, as do gate and up: the first of each stands for all.
constexpr model::LinearKind InputOf(model::LinearKind kind) {
  using model::LinearKind;
  switch (kind) {
    case LinearKind::kK:
    case LinearKind::kV:
      return LinearKind::kQ;
    case LinearKind::kUp:
      return LinearKind::kGate;
    default:
      return kind;
  }
}

class InputStats : public model::LinearObserver {
 public:
  InputStats(ExecContext& ctx, const model::ModelConfig& config, int64_t sample_tokens) {
    for (model::LinearKind kind : model::kAllLinears) {
      if (InputOf(kind) != kind) continue;
      Stat& s = stats_[static_cast<size_t>(kind)];
      s.in = model::ShapeOf(config, kind).in;
      s.hessian = std::make_unique<HessianObserver>(ctx, kind, s.in);
      s.sample = FloatBuffer(sample_tokens * s.in);
    }
  }

  // Where the next window's inputs belong among the sampled tokens; nothing: not sampled.
  void SampleAt(std::optional<int64_t> token) { token_ = token; }

  void Input(int64_t layer, model::LinearKind kind, int64_t rows, const float* x) override {
    if (InputOf(kind) != kind) return;
    Stat& s = stats_[static_cast<size_t>(kind)];
    s.hessian->Input(layer, kind, rows, x);
    if (token_) std::copy_n(x, rows * s.in, s.sample.data() + *token_ * s.in);
  }

  // [in, in], up to a factor X^T X. After the last window.
  const float* Hessian(model::LinearKind kind) {
    Stat& s = Of(kind);
    if (s.finished == nullptr) s.finished = s.hessian->Finish();
    return s.finished;
  }
  // Root of the Hessian's diagonal: the inputs' norms up to a factor.
  std::vector<float> Norms(model::LinearKind kind) {
    const float* h = Hessian(kind);
    const int64_t n = Of(kind).in;
    std::vector<float> out(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = std::sqrt(h[i * n + i]);
    return out;
  }
  const float* Sample(model::LinearKind kind) { return Of(kind).sample.data(); }

 private:
  struct Stat {
    int64_t in = 0;
    std::unique_ptr<HessianObserver> hessian;
    const float* finished = nullptr;
    FloatBuffer sample;  // [sampled tokens, in]
  };
  Stat& Of(model::LinearKind kind) { return stats_[static_cast<size_t>(InputOf(kind))]; }

  std::array<Stat, model::kLinearKinds> stats_;
  std::optional<int64_t> token_;
};

}  // namespace edgewise::compress
