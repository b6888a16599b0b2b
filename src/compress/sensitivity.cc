#include "compress/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compress/prune.h"
#include "compress/rtn.h"
#include "compress/second_order.h"
#include "kernels/linear.h"
#include "kernels/weight_rows.h"
#include "model/parameters.h"
#include "model/training_pass.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

size_t Index(LinearKind kind) { return static_cast<size_t>(kind); }

// The dense weights of one layer, and one compressed form of them at a time.
class Candidate {
 public:
  Candidate(const model::ModelConfig& config, const model::LayerWeights& layer) : layer_(layer) {
    for (LinearKind kind : kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config, kind);
      dense_[Index(kind)] = FloatBuffer(shape.out * shape.in);
      kernels::WeightRowsToF32(layer[kind].weight, 0, shape.out, dense_[Index(kind)].data());
      made_[Index(kind)] = FloatBuffer(shape.out * shape.in);
    }
  }

  const float* dense(LinearKind kind) const { return dense_[Index(kind)].data(); }

  // Wanda, then round to nearest, into the candidate's own buffer.
  const float* Make(LinearKind kind, const Option& option, int64_t group,
                    const std::vector<float>& input_norm) {
    const kernels::WeightRef& w = layer_[kind].weight;
    const float* from = dense(kind);
    float* to = made_[Index(kind)].data();
    std::vector<uint8_t> keep;
    if (option.sparsity > 0) {
      keep = WandaMask(from, input_norm.data(), w.rows, w.cols, option.sparsity, {});
    }
    if (option.bits >= 16) {
      for (int64_t i = 0; i < w.rows * w.cols; ++i) {
        to[i] = keep.empty() || keep[static_cast<size_t>(i)] != 0 ? from[i] : 0.0f;
      }
      return to;
    }
    const auto q = RoundToNearest(from, w.rows, w.cols, Grid{option.bits}, group,
                                  keep.empty() ? nullptr : keep.data());
    for (int64_t r = 0; r < w.rows; ++r) {
      for (int64_t c = 0; c < w.cols; ++c) {
        to[r * w.cols + c] = static_cast<float>(q.codes[static_cast<size_t>(r * w.cols + c)]) *
                             q.scales[static_cast<size_t>(r * q.groups + c / q.group)];
      }
    }
    return to;
  }

  // The layer with every linear replaced by what Make made last.
  model::LayerWeights Weights() const {
    model::LayerWeights w = layer_;
    for (LinearKind kind : kAllLinears) {
      const kernels::WeightRef& old = layer_[kind].weight;
      w[kind].weight = kernels::WeightRef::Dense(made_[Index(kind)].data(), old.rows, old.cols);
    }
    return w;
  }

 private:
  const model::LayerWeights& layer_;
  std::array<FloatBuffer, model::kLinearKinds> dense_, made_;
};

// Sums of squares of every input feature.
class InputNorms : public model::LinearObserver {
 public:
  void Input(int64_t, LinearKind kind, int64_t rows, const float* x) override {
    std::vector<double>& s = sums_[Index(kind)];
    const auto n = s.size();
    for (int64_t t = 0; t < rows; ++t) {
      for (size_t j = 0; j < n; ++j) {
        const double v = x[static_cast<size_t>(t) * n + j];
        s[j] += v * v;
      }
    }
  }
  void Reset(const model::ModelConfig& config) {
    for (LinearKind kind : kAllLinears) {
      sums_[Index(kind)].assign(static_cast<size_t>(model::ShapeOf(config, kind).in), 0.0);
    }
  }
  std::vector<float> Norm(LinearKind kind) const {
    std::vector<float> out;
    for (double s : sums_[Index(kind)]) out.push_back(static_cast<float>(std::sqrt(s)));
    return out;
  }

 private:
  std::array<std::vector<double>, model::kLinearKinds> sums_;
};

// Inputs and output gradients of the linears, kept as fp32 in one stream of tokens.
struct LinearSample {
  FloatBuffer x, dy;
  int64_t rows = 0;
};

class GradientSample : public model::LinearObserver {
 public:
  GradientSample(const model::ModelConfig& config)
      : config_(config), samples_(config.layers.size()) {}
  void Gradient(int64_t layer, LinearKind kind, int64_t rows, const float* x,
                const float* dy) override {
    const model::LinearShape shape = model::ShapeOf(config_, kind);
    LinearSample& s = samples_[static_cast<size_t>(layer)][Index(kind)];
    s.rows = rows;
    s.x = FloatBuffer(rows * shape.in);
    s.dy = FloatBuffer(rows * shape.out);
    std::copy_n(x, rows * shape.in, s.x.data());
    std::copy_n(dy, rows * shape.out, s.dy.data());
  }
  LinearSample& at(int64_t layer, LinearKind kind) {
    return samples_[static_cast<size_t>(layer)][Index(kind)];
  }

 private:
  const model::ModelConfig& config_;
  std::vector<std::array<LinearSample, model::kLinearKinds>> samples_;
};

// Bytes that a sample of all linears takes per token.
int64_t SampleBytesPerToken(const model::ModelConfig& config) {
  int64_t floats = 0;
  for (LinearKind kind : kAllLinears) {
    const model::LinearShape shape = model::ShapeOf(config, kind);
    floats += shape.in + shape.out;
  }
  return floats * 4 * config.num_layers();
}

class Profiler {
 public:
  Profiler(ExecContext& ctx, const model::Model& model, const std::vector<TokenBatch>& windows,
           const ProfileOptions& options, const std::atomic<bool>* stop,
           const std::function<void(const ProfileProgress&)>& progress)
      : ctx_(ctx),
        model_(model),
        config_(model.config()),
        windows_(windows),
        opt_(options),
        stop_(stop),
        progress_(progress),
        pass_(ctx, model, LongestWindow(windows)),
        gradients_(model.config()) {}

  Result<SensitivityTable> Run() {
    if (windows_.empty()) return InvalidArgument("no calibration windows");
    SensitivityTable table;
    table.calibration_hash = HashWindows(windows_);
    table.windows = static_cast<int64_t>(windows_.size());
    table.window_tokens = windows_.front().size();
    table.group = opt_.group;
    table.quantizer = "rtn";
    table.pruner = "wanda";
    if (opt_.loss_tokens > 0) EW_RETURN_IF_ERROR(SampleGradients());
    EW_ASSIGN(states_,
              StateStore::Create(windows_, config_.hidden, opt_.memory_bytes, opt_.scratch_path));
    x_ = FloatBuffer(LongestWindow(windows_) * config_.hidden);
    y_ = FloatBuffer(x_.size());
    z_ = FloatBuffer(x_.size());
    for (size_t w = 0; w < windows_.size(); ++w) {
      EW_RETURN_IF_ERROR(pass_.Embed(windows_[w], x_.data()));
      EW_RETURN_IF_ERROR(states_->Write(static_cast<int64_t>(w), x_.data()));
    }
    for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
      EW_ASSIGN(LayerSensitivity measured, Layer(layer));
      table.layers.push_back(std::move(measured));
    }
    return table;
  }

 private:
  static int64_t LongestWindow(const std::vector<TokenBatch>& windows) {
    int64_t n = 1;
    for (const TokenBatch& b : windows) n = std::max(n, b.size());
    return n;
  }

  Status Stopped() const {
    if (stop_ == nullptr || !stop_->load()) return Status::Ok();
    return {StatusCode::kInterrupted, "stopped while measuring sensitivities"};
  }
  void Report(int64_t layer, std::string what) const {
    if (progress_) progress_({layer, config_.num_layers(), std::move(what)});
  }

  // One forward and backward pass of the loss; every linear's input and output gradient is kept.
  // An adapter on the lowest layer makes the back-propagation go all the way down.
  Status SampleGradients() {
    Report(0, "gradients");
    const int64_t room = opt_.memory_bytes / std::max<int64_t>(1, SampleBytesPerToken(config_));
    const int64_t tokens = std::min({opt_.loss_tokens, room, LongestWindow(windows_)});
    if (tokens < 8) return Status::Ok();  // no room: policies fall back to the output error
    model::LoraConfig lora;
    lora.r = 1;
    lora.targets = model::LoraConfig::Targets::kList;
    lora.target_modules = {"q_proj"};
    lora.layers_to_transform = std::vector<int64_t>{0};
    EW_ASSIGN(auto adapter, model::LoraAdapter::Create(config_, lora, /*seed=*/0));
    const model::ParameterSet params = model::ParameterSet::ForLora(adapter);
    // Pieces of several windows, as documents of one stream.
    const auto pieces = static_cast<int64_t>(
        std::clamp<size_t>(static_cast<size_t>(tokens / 128), 1, windows_.size()));
    TokenBatch batch;
    for (int64_t p = 0; p < pieces; ++p) {
      const TokenBatch& w =
          windows_[static_cast<size_t>(p * static_cast<int64_t>(windows_.size()) / pieces)];
      const int64_t n = std::min(tokens / pieces, w.size());
      const auto begin = static_cast<int32_t>(batch.size());
      for (int64_t t = 0; t < n; ++t) {
        const auto i = static_cast<size_t>(t);
        batch.ids.push_back(w.ids[i]);
        batch.positions.push_back(static_cast<int32_t>(t));
        batch.first_key.push_back(begin);
        batch.targets.push_back(t + 1 < n ? w.targets[i] : TokenBatch::kNoTarget);
      }
    }
    model::PassOptions o;
    o.lora = &adapter;
    o.gradients = &params.gradients();
    o.grad_scale = 1.0;
    o.linears = &gradients_;
    EW_ASSIGN(const kernels::HeadLossResult loss, pass_.Run(batch, o));
    if (!std::isfinite(loss.loss_sum)) {
      return BadInput("the model's loss on the calibration text is not finite");
    }
    sampled_ = true;
    loss_rows_ = loss.labelled;
    return Status::Ok();
  }

  // Squared differences of the layer's output under `weights`, over all windows.
  Result<Measure> Compare(int64_t layer, const model::LayerWeights& weights, const Option& option,
                          const StateStore& outputs) {
    double error = 0, square = 0;
    int64_t count = 0;
    for (size_t w = 0; w < windows_.size(); ++w) {
      const auto at = static_cast<int64_t>(w);
      EW_RETURN_IF_ERROR(states_->Read(at, z_.data()));
      EW_RETURN_IF_ERROR(pass_.ForwardLayer(windows_[w], layer, &weights, nullptr, z_.data()));
      EW_RETURN_IF_ERROR(outputs.Read(at, y_.data()));
      const int64_t n = windows_[w].size() * config_.hidden;
      for (int64_t i = 0; i < n; ++i) {
        const double d = static_cast<double>(z_[i]) - y_[i];
        error += d * d;
        square += static_cast<double>(y_[i]) * y_[i];
      }
      count += n;
    }
    EW_RETURN_IF_ERROR(Stopped());
    Measure m;
    m.option = option;
    m.mse = error / static_cast<double>(count);
    m.relative = square > 0 ? error / square : 0;
    return m;
  }

  Result<LayerSensitivity> Layer(int64_t layer) {
    Report(layer, "layer");
    Candidate candidate(config_, model_.weights().layers[static_cast<size_t>(layer)]);
    norms_.Reset(config_);
    EW_ASSIGN(auto outputs, StateStore::Create(windows_, config_.hidden, opt_.memory_bytes,
                                               opt_.scratch_path + (layer % 2 == 0 ? "-b" : "-a")));
    for (size_t w = 0; w < windows_.size(); ++w) {
      const auto at = static_cast<int64_t>(w);
      EW_RETURN_IF_ERROR(states_->Read(at, x_.data()));
      EW_RETURN_IF_ERROR(pass_.ForwardLayer(windows_[w], layer, nullptr, &norms_, x_.data()));
      EW_RETURN_IF_ERROR(outputs->Write(at, x_.data()));
    }
    LayerSensitivity out;
    const auto measure = [&](const Option& option) -> Result<Measure> {
      for (LinearKind kind : kAllLinears) {
        candidate.Make(kind, option, opt_.group, norms_.Norm(kind));
      }
      return Compare(layer, candidate.Weights(), option, *outputs);
    };
    for (int bits : opt_.bits) {
      EW_ASSIGN(const Measure m, measure({bits, 0.0}));
      out.quantized.push_back(m);
    }
    for (double ratio : opt_.ratios) {
      EW_ASSIGN(const Measure m, measure({16, ratio}));
      out.pruned.push_back(m);
    }
    for (LinearKind kind : kAllLinears) {
      EW_ASSIGN(LinearSensitivity linear, Linear(layer, kind, candidate));
      out.linears.push_back(std::move(linear));
    }
    states_ = std::move(outputs);
    return out;
  }

  // e = x dW^T for every option; its mean square, and 1/2 mean (g . e)^2.
  Result<LinearSensitivity> Linear(int64_t layer, LinearKind kind, Candidate& candidate) {
    const model::LinearShape shape = model::ShapeOf(config_, kind);
    LinearSensitivity out{std::string(model::LinearName(kind)), shape.out, shape.in, {}};
    LinearSample& sample = gradients_.at(layer, kind);
    if (!sampled_) return out;
    FloatBuffer y(sample.rows * shape.out), e(sample.rows * shape.out);
    kernels::LinearForward(ctx_, sample.rows, sample.x.data(), shape.in,
                           kernels::WeightRef::Dense(candidate.dense(kind), shape.out, shape.in),
                           nullptr, y.data(), shape.out);
    double square = 0;
    for (int64_t i = 0; i < y.size(); ++i) square += static_cast<double>(y[i]) * y[i];
    const std::vector<float> norm = norms_.Norm(kind);
    for (int bits : opt_.bits) {
      for (double sparsity : opt_.linear_sparsities) {
        const Option option{bits, sparsity};
        const float* w = candidate.Make(kind, option, opt_.group, norm);
        kernels::LinearForward(ctx_, sample.rows, sample.x.data(), shape.in,
                               kernels::WeightRef::Dense(w, shape.out, shape.in), nullptr, e.data(),
                               shape.out);
        double error = 0, loss = 0;
        for (int64_t t = 0; t < sample.rows; ++t) {
          double dot = 0;
          for (int64_t i = t * shape.out; i < (t + 1) * shape.out; ++i) {
            const double d = static_cast<double>(e[i]) - y[i];
            error += d * d;
            dot += d * sample.dy[i];
          }
          loss += 0.5 * dot * dot;
        }
        Measure m;
        m.option = option;
        m.mse = error / static_cast<double>(y.size());
        m.relative = square > 0 ? error / square : 0;
        m.loss = loss / static_cast<double>(std::max<int64_t>(1, loss_rows_));
        out.measures.push_back(m);
      }
    }
    sample = LinearSample();
    return out;
  }

  ExecContext& ctx_;
  const model::Model& model_;
  const model::ModelConfig& config_;
  const std::vector<TokenBatch>& windows_;
  const ProfileOptions& opt_;
  const std::atomic<bool>* stop_;
  const std::function<void(const ProfileProgress&)>& progress_;
  model::TrainingPass pass_;
  GradientSample gradients_;
  InputNorms norms_;
  std::unique_ptr<StateStore> states_;
  FloatBuffer x_, y_, z_;
  bool sampled_ = false;
  int64_t loss_rows_ = 0;
};

}  // namespace

Result<SensitivityTable> MeasureSensitivity(
    ExecContext& ctx, const model::Model& model, const std::vector<TokenBatch>& windows,
    const ProfileOptions& options, const std::atomic<bool>* stop,
    const std::function<void(const ProfileProgress&)>& progress) {
  return Profiler(ctx, model, windows, options, stop, progress).Run();
}

}  // namespace edgewise::compress
