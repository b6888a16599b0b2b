#include "model/whole_head.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/aligned_buffer.h"

namespace edgewise::model {
namespace {

// log of the sum of exp, in double.
double LogSumExp(const float* z, int64_t n) {
  const float top = *std::max_element(z, z + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(z[i]) - top);
  return static_cast<double>(top) + std::log(sum);
}

struct Row {
  double loss = 0;
  bool correct = false;
};

// Loss of one row; its logits become their gradient, times `scale`. `teacher` may be null.
Row LossOfRow(const kernels::HeadLossArgs& a, int64_t target, const float* teacher, double weight,
              double scale, float* z) {
  const int64_t vocab = a.head.rows;
  if (a.softcap > 0) {
    for (int64_t v = 0; v < vocab; ++v) z[v] = a.softcap * std::tanh(z[v] / a.softcap);
  }
  const double lse = LogSumExp(z, vocab);
  const double teacher_lse = teacher != nullptr ? LogSumExp(teacher, vocab) : 0;
  Row row;
  row.correct = std::max_element(z, z + vocab) - z == target;
  const double hard = teacher != nullptr ? 1 - weight : 1;
  row.loss = hard * (lse - static_cast<double>(z[target]));
  for (int64_t v = 0; v < vocab; ++v) {
    const double logp = static_cast<double>(z[v]) - lse;
    double wanted = v == target ? hard : 0;
    if (teacher != nullptr) {
      const double logq = static_cast<double>(teacher[v]) - teacher_lse, q = std::exp(logq);
      row.loss += weight * q * (logq - logp);
      wanted += weight * q;
    }
    double slope = scale;
    if (a.softcap > 0) {
      const double t = static_cast<double>(z[v]) / a.softcap;
      slope *= 1 - t * t;
    }
    z[v] = static_cast<float>(slope * (std::exp(logp) - wanted));
  }
  return row;
}

}  // namespace

Result<kernels::HeadLossResult> WholeHeadLoss(ExecContext& ctx, const kernels::HeadLossArgs& a,
                                              const kernels::LinearBackwardOptions& backward,
                                              int64_t chunk, const Teacher* teacher) {
  const int64_t h = a.head.cols, vocab = a.head.rows, r = a.lora_r;
  const bool train = a.grad_scale != 0;
  kernels::HeadLossResult result;
  std::vector<int64_t> tokens;
  for (int64_t t = 0; t < a.tokens; ++t) {
    if (a.token_loss != nullptr) a.token_loss[t] = 0;
    if (a.targets[t] >= 0) tokens.push_back(t);
  }
  if (a.dhidden != nullptr) std::fill_n(a.dhidden, a.tokens * h, 0.0f);
  const auto labelled = static_cast<int64_t>(tokens.size());
  if (labelled == 0) return result;
  const int64_t most = chunk > 0 ? std::min(chunk, labelled) : labelled;
  FloatBuffer x(most * h), z(most * vocab), xa(most * r), dx, dxa, theirs, unwanted;
  if (train) dx = FloatBuffer(most * h), dxa = FloatBuffer(most * r);
  if (teacher != nullptr) theirs = FloatBuffer(most * vocab);
  // The factors' gradients come together; of an adapter that is not trained they go nowhere.
  float *da = a.dlora_a, *db = a.dlora_b;
  if (train && r > 0 && (da == nullptr || db == nullptr)) {
    unwanted = FloatBuffer::Zeros(r * (h + vocab));
    da = unwanted.data(), db = da + r * h;
  }
  std::vector<Row> rows(static_cast<size_t>(most));
  for (int64_t begin = 0; begin < labelled; begin += most) {
    const int64_t n = std::min(most, labelled - begin);
    const auto of_chunk =
        std::span(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(a.hidden + of_chunk[static_cast<size_t>(i)] * h, h, x.data() + i * h);
    }
    kernels::LinearForward(ctx, n, x.data(), h, a.head, nullptr, z.data(), vocab);
    if (r > 0) {
      kernels::LoraForward(ctx, n, h, vocab, r, a.lora_scale, x.data(), h, a.lora_a, a.lora_b,
                           xa.data(), z.data(), vocab);
    }
    if (teacher != nullptr) EW_RETURN_IF_ERROR(teacher->logits(of_chunk, theirs.data()));
    ctx.ParallelFor(n, 1, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t t = of_chunk[static_cast<size_t>(i)];
        const double weight = a.weights != nullptr ? a.weights[t] : 1.0;
        Row& row = rows[static_cast<size_t>(i)];
        row = LossOfRow(a, a.targets[t], teacher != nullptr ? theirs.data() + i * vocab : nullptr,
                        teacher != nullptr ? teacher->weight : 0, weight * a.grad_scale,
                        z.data() + i * vocab);
        row.loss *= weight;
        if (a.token_loss != nullptr) a.token_loss[t] = static_cast<float>(row.loss);
      }
    });
    for (int64_t i = 0; i < n; ++i) {
      const Row& row = rows[static_cast<size_t>(i)];
      result.loss_sum += row.loss;
      result.weight_sum += a.weights != nullptr ? a.weights[of_chunk[static_cast<size_t>(i)]] : 1.0;
      result.correct += row.correct ? 1 : 0;
    }
    result.labelled += n;
    if (!train) continue;
    float* into = a.dhidden != nullptr ? dx.data() : nullptr;
    if (into != nullptr) {
      kernels::LinearBackwardInput(ctx, n, z.data(), vocab, a.head, into, h,
                                   kernels::Accumulate::kOverwrite, backward);
    }
    if (r > 0) {
      kernels::LoraBackward(ctx, n, h, vocab, r, a.lora_scale, x.data(), h, xa.data(), a.lora_a,
                            a.lora_b, z.data(), vocab, dxa.data(), da, db, into, h);
    }
    if (a.dhead != nullptr) {
      kernels::LinearBackwardWeight(ctx, n, vocab, h, z.data(), vocab, x.data(), h, a.dhead,
                                    nullptr);
    }
    for (int64_t i = 0; i < n && into != nullptr; ++i) {
      std::copy_n(into + i * h, h, a.dhidden + of_chunk[static_cast<size_t>(i)] * h);
    }
  }
  return result;
}

int64_t WholeHeadBytes(const kernels::HeadLossArgs& a, int64_t rows, int64_t chunk,
                       const Teacher* teacher) {
  const int64_t h = a.head.cols, vocab = a.head.rows, r = a.lora_r;
  const bool train = a.grad_scale != 0;
  const int64_t most = chunk > 0 ? std::min(chunk, rows) : rows;
  int64_t floats = most * ((h + r) * (train ? 2 : 1) + vocab * (teacher != nullptr ? 2 : 1));
  if (train && r > 0 && (a.dlora_a == nullptr || a.dlora_b == nullptr)) floats += r * (h + vocab);
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace edgewise::model
