#include "compress/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "compress/candidate.h"
#include "compress/compress_linear.h"
#include "compress/gradient_sample.h"
#include "compress/input_stats.h"
#include "compress/logit_divergence.h"
#include "compress/second_order.h"
#include "kernels/linear.h"
#include "model/training_pass.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

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
        pass_(ctx, model, LongestWindow(windows)) {}

  Result<SensitivityTable> Run() {
    if (windows_.empty()) return InvalidArgument("no calibration windows");
    SensitivityTable table;
    table.calibration_hash = HashWindows(windows_);
    table.windows = static_cast<int64_t>(windows_.size());
    table.window_tokens = windows_.front().size();
    table.group = opt_.method.policy.group;
    table.pattern = opt_.method.policy.pattern;
    table.quantizer = QuantizerName(opt_.method.quantizer);
    table.pruner = PrunerName(opt_.method.pruner);
    compared_ = SpreadWindows(windows_, opt_.layer_windows * windows_.front().size());
    if (opt_.kl_windows > 0) {
      // The divergence is measured on the first windows.
      for (size_t w = 0; w < windows_.size() && static_cast<int64_t>(w) < opt_.kl_windows; ++w) {
        compared_.push_back(w);
      }
      std::sort(compared_.begin(), compared_.end());
      compared_.erase(std::unique(compared_.begin(), compared_.end()), compared_.end());
    }
    EW_RETURN_IF_ERROR(SampleGradients());
    EW_ASSIGN(divergence_, LogitDivergence::Create(pass_, model_, windows_, opt_.kl_windows));
    EW_ASSIGN(states_, StateStore::Create(windows_, config_.hidden, opt_.memory_bytes / 8 * 3,
                                          opt_.scratch_path));
    x_ = FloatBuffer(LongestWindow(windows_) * config_.hidden);
    y_ = FloatBuffer(x_.size());
    z_ = FloatBuffer(x_.size());
    for (size_t w = 0; w < windows_.size(); ++w) {
      EW_RETURN_IF_ERROR(pass_.Embed(windows_[w], x_.data()));
      EW_RETURN_IF_ERROR(states_->Write(static_cast<int64_t>(w), x_.data()));
    }
    model_.DropCached({model::WeightRole::kEmbedding});
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

  Status SampleGradients() {
    const std::vector<size_t> chosen = SpreadWindows(windows_, opt_.loss_tokens);
    if (chosen.empty()) return Status::Ok();
    Report(0, "gradients");
    std::vector<const TokenBatch*> batches;
    int64_t token = 0;
    for (size_t w : chosen) {
      batches.push_back(&windows_[w]);
      sampled_at_[w] = token;
      token += windows_[w].size();
    }
    EW_ASSIGN(gradients_, GradientSample::Collect(pass_, model_, batches, opt_.memory_bytes / 4,
                                                  opt_.scratch_path + "-g", stop_));
    return Status::Ok();
  }

  // Squared differences of the layer's output under `weights`, over the windows compared.
  Result<Measure> Compare(int64_t layer, const model::LayerWeights& weights, const Option& option,
                          const StateStore& outputs) {
    double error = 0, square = 0, divergence = 0;
    int64_t count = 0;
    for (size_t w : compared_) {
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
      if (divergence_->Measures(w)) {
        EW_ASSIGN(const double kl, divergence_->Measure(w, layer + 1, z_.data()));
        divergence += kl;
      }
    }
    EW_RETURN_IF_ERROR(Stopped());
    Measure m;
    m.option = option;
    m.mse = error / static_cast<double>(count);
    m.relative = square > 0 ? error / square : 0;
    if (divergence_->tokens() > 0) m.loss = divergence / static_cast<double>(divergence_->tokens());
    return m;
  }

  Result<LayerSensitivity> Layer(int64_t layer) {
    Report(layer, "layer");
    InputStats stats(ctx_, config_, gradients_ == nullptr ? 0 : gradients_->tokens());
    EW_ASSIGN(auto outputs, StateStore::Create(windows_, config_.hidden, opt_.memory_bytes / 8 * 3,
                                               opt_.scratch_path + (layer % 2 == 0 ? "-b" : "-a")));
    for (size_t w = 0; w < windows_.size(); ++w) {
      const auto at = static_cast<int64_t>(w);
      const auto sampled = sampled_at_.find(w);
      stats.SampleAt(sampled == sampled_at_.end() ? std::nullopt
                                                  : std::optional<int64_t>(sampled->second));
      EW_RETURN_IF_ERROR(states_->Read(at, x_.data()));
      EW_RETURN_IF_ERROR(pass_.ForwardLayer(windows_[w], layer, nullptr, &stats, x_.data()));
      EW_RETURN_IF_ERROR(outputs->Write(at, x_.data()));
    }
    Candidate candidate(config_, model_.weights().layers[static_cast<size_t>(layer)]);
    for (LinearKind kind : kAllLinears) {
      model_.DropCached({model::WeightRole::kLinear, layer, kind});
    }
    LayerSensitivity out;
    const auto measure = [&](const Option& option) -> Result<Measure> {
      for (LinearKind kind : kAllLinears) {
        candidate.Make(kind, option, opt_.method.policy.group, stats.Norms(kind));
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
    EW_RETURN_IF_ERROR(Linears(layer, candidate, stats, out));
    states_ = std::move(outputs);
    return out;
  }

  bool SecondOrder() const {
    return opt_.method.quantizer == Quantizer::kGptq || opt_.method.pruner == Pruner::kSparseGpt;
  }

  Status Linears(int64_t layer, const Candidate& candidate, InputStats& stats,
                 LayerSensitivity& out) {
    InverseFactor<float> factor;
    LinearKind factored = LinearKind::kDown;
    for (LinearKind kind : kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config_, kind);
      if (gradients_ != nullptr && SecondOrder() && (factor.n == 0 || InputOf(kind) != factored)) {
        HessianOptions options;
        options.percdamp = opt_.method.percdamp;
        factored = InputOf(kind);
        factor = InverseFactor<float>();
        EW_ASSIGN(factor, FactorInverseHessian<float>(stats.Hessian(kind), shape.in, options));
      }
      EW_ASSIGN(LinearSensitivity linear, Linear(layer, kind, candidate.dense(kind), stats,
                                                 factor.n > 0 ? &factor : nullptr));
      out.linears.push_back(std::move(linear));
    }
    return Status::Ok();
  }

  std::vector<Option> LinearOptions() const {
    std::vector<Option> out;
    for (int bits : opt_.bits) out.push_back({bits, 0.0});
    const Result<PatternSpec> pattern = ParsePattern(opt_.method.policy.pattern);
    const bool nm = pattern.ok() && pattern->kind == PatternSpec::Kind::kNm;
    if (!nm) {
      out.insert(out.end(), opt_.sparse_options.begin(), opt_.sparse_options.end());
      return out;
    }
    for (int bits : opt_.bits) {
      out.push_back({bits, static_cast<double>(pattern->nm.n) / pattern->nm.m});
    }
    return out;
  }

  // e = x dW^T for every option; its mean square, and 1/2 mean (g . e)^2.
  Result<LinearSensitivity> Linear(int64_t layer, LinearKind kind, const float* dense,
                                   InputStats& stats, const InverseFactor<float>* factor) {
    const model::LinearShape shape = model::ShapeOf(config_, kind);
    LinearSensitivity out{std::string(model::LinearName(kind)), shape.out, shape.in, {}};
    if (gradients_ == nullptr) return out;
    const int64_t rows = gradients_->tokens();
    FloatBuffer y(rows * shape.out), e(rows * shape.out), dy(rows * shape.out);
    EW_RETURN_IF_ERROR(gradients_->Read(layer, kind, dy.data()));
    const float* x = stats.Sample(kind);
    kernels::LinearForward(ctx_, rows, x, shape.in,
                           kernels::WeightRef::Dense(dense, shape.out, shape.in), nullptr, y.data(),
                           shape.out);
    double square = 0;
    for (int64_t i = 0; i < y.size(); ++i) square += static_cast<double>(y[i]) * y[i];
    for (const Option& option : LinearOptions()) {
      EW_RETURN_IF_ERROR(Stopped());
      EW_ASSIGN(const LinearResult made,
                CompressLinear(ctx_, dense, stats.Hessian(kind), shape.out, shape.in, option,
                               opt_.method, {.factor = factor, .values_only = true})
                    .WithContext(model::LinearPath(layer, kind)));
      kernels::LinearForward(ctx_, rows, x, shape.in,
                             kernels::WeightRef::Dense(made.dense.data(), shape.out, shape.in),
                             nullptr, e.data(), shape.out);
      double error = 0, loss = 0;
      for (int64_t t = 0; t < rows; ++t) {
        double dot = 0;
        for (int64_t i = t * shape.out; i < (t + 1) * shape.out; ++i) {
          const double d = static_cast<double>(e[i]) - y[i];
          error += d * d;
          dot += d * dy[i];
        }
        loss += 0.5 * dot * dot;
      }
      Measure m;
      m.option = option;
      m.mse = error / static_cast<double>(y.size());
      m.relative = square > 0 ? error / square : 0;
      m.loss = loss / static_cast<double>(std::max<int64_t>(1, gradients_->labelled()));
      out.measures.push_back(m);
    }
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
  std::unique_ptr<GradientSample> gradients_;
  std::vector<size_t> compared_;          // windows on which whole layers are compared
  std::map<size_t, int64_t> sampled_at_;  // window -> its first token among the sampled ones
  std::unique_ptr<LogitDivergence> divergence_;
  std::unique_ptr<StateStore> states_;
  FloatBuffer x_, y_, z_;
};

}  // namespace

std::vector<size_t> SpreadWindows(const std::vector<TokenBatch>& windows, int64_t tokens) {
  std::vector<size_t> out;
  if (tokens <= 0 || windows.empty()) return out;
  const int64_t length = std::max<int64_t>(1, windows.front().size());
  const size_t count = std::clamp<size_t>(static_cast<size_t>(tokens / length), 1, windows.size());
  for (size_t i = 0; i < count; ++i) out.push_back(i * windows.size() / count);
  return out;
}

Result<SensitivityTable> MeasureSensitivity(
    ExecContext& ctx, const model::Model& model, const std::vector<TokenBatch>& windows,
    const ProfileOptions& options, const std::atomic<bool>* stop,
    const std::function<void(const ProfileProgress&)>& progress) {
  return Profiler(ctx, model, windows, options, stop, progress).Run();
}

}  // namespace edgewise::compress
