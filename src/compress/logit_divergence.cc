#include "compress/logit_divergence.h"

#include <algorithm>
#include <cmath>

namespace edgewise::compress {
namespace {

constexpr int64_t kRows = 32;  // logits at a time

// KL(softmax(p) || softmax(q))
double Divergence(const float* p, const float* q, int64_t n) {
  const double p_max = *std::max_element(p, p + n), q_max = *std::max_element(q, q + n);
  double p_sum = 0, q_sum = 0, mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double w = std::exp(p[i] - p_max);
    p_sum += w;
    q_sum += std::exp(q[i] - q_max);
    mean += w * ((p[i] - p_max) - (q[i] - q_max));
  }
  return mean / p_sum - std::log(p_sum) + std::log(q_sum);
}

}  // namespace

Result<std::unique_ptr<LogitDivergence>> LogitDivergence::Create(
    model::TrainingPass& pass, const model::Model& model, const std::vector<TokenBatch>& windows,
    int64_t count) {
  std::unique_ptr<LogitDivergence> d(new LogitDivergence(pass, model, windows));
  const int64_t layers = model.config().num_layers();
  for (size_t w = 0; w < windows.size() && static_cast<int64_t>(w) < count; ++w) {
    FloatBuffer& h = d->final_.emplace_back(windows[w].size() * model.config().hidden);
    EW_RETURN_IF_ERROR(pass.Embed(windows[w], h.data()));
    EW_RETURN_IF_ERROR(pass.Forward(windows[w], {0, layers}, nullptr, h.data()));
    d->tokens_ += windows[w].size();
  }
  if (count > 0) {
    d->p_ = FloatBuffer(kRows * model.config().vocab);
    d->q_ = FloatBuffer(kRows * model.config().vocab);
  }
  return d;
}

Result<double> LogitDivergence::Measure(size_t window, int64_t layer, float* hidden) {
  const model::ModelConfig& c = model_.config();
  EW_RETURN_IF_ERROR(pass_.Forward(windows_[window], {layer, c.num_layers()}, nullptr, hidden));
  const int64_t tokens = windows_[window].size();
  double sum = 0;
  for (int64_t row = 0; row < tokens; row += kRows) {
    const int64_t n = std::min(kRows, tokens - row);
    EW_RETURN_IF_ERROR(pass_.Logits(n, final_[window].data() + row * c.hidden, p_.data()));
    EW_RETURN_IF_ERROR(pass_.Logits(n, hidden + row * c.hidden, q_.data()));
    for (int64_t i = 0; i < n; ++i) {
      sum += Divergence(p_.data() + i * c.vocab, q_.data() + i * c.vocab, c.vocab);
    }
  }
  return sum;
}

}  // namespace edgewise::compress
