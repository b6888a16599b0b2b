#include "model/flops.h"

#include <algorithm>

#include "model/weights.h"

namespace edgewise::model {
namespace {

double LinearWeights(const ModelConfig& c) {
  double weights = 0;
  for (LinearKind kind : kAllLinears) {
    const LinearShape s = ShapeOf(c, kind);
    weights += static_cast<double>(s.in) * static_cast<double>(s.out);
  }
  return weights;
}

double AdapterWeights(const ModelConfig& c, int64_t r) {
  double weights = 0;
  for (LinearKind kind : kAllLinears) {
    const LinearShape s = ShapeOf(c, kind);
    weights += static_cast<double>(r) * static_cast<double>(s.in + s.out);
  }
  return weights;
}

// Sum over the queries of one document of the keys they see.
double VisiblePairs(double length, double window) {
  if (window <= 0 || window >= length) return length * (length + 1) / 2;
  return window * (window + 1) / 2 + (length - window) * window;
}

}  // namespace

StepWork CountStep(const ModelConfig& c, const StepWorkOptions& o) {
  const int64_t end = o.run.end < 0 ? c.num_layers() : o.run.end;
  const double tokens = static_cast<double>(o.tokens);
  const double sequence = static_cast<double>(o.sequence > 0 ? o.sequence : o.tokens);
  const double linears = LinearWeights(c);
  const double adapters = AdapterWeights(c, o.lora_rank);
  StepWork work;
  for (int64_t layer = o.run.begin; layer < end; ++layer) {
    const double window = static_cast<double>(c.layers[static_cast<size_t>(layer)].window);
    const double pairs = sequence > 0 ? tokens / sequence * VisiblePairs(sequence, window) : 0;
    // q k^T and p v forward; their four products and the scores again backward.
    const double attention = 4 * pairs * static_cast<double>(c.q_dim());
    const double forward = 2 * tokens * (linears + adapters) + attention;
    work.forward += forward;
    work.weight_bytes += linears * o.bytes_per_weight;
    if (layer < o.train_from) continue;
    work.backward += 2 * tokens * linears + 2.5 * attention;
    work.backward += (o.full ? 2 * tokens * linears : 0) + 4 * tokens * adapters;
    if (o.recompute) work.recompute += forward;
    work.weight_bytes += linears * o.bytes_per_weight * (o.recompute ? 2 : 1);
  }
  const double head = static_cast<double>(c.vocab) * static_cast<double>(c.hidden);
  const bool trains = o.train_from < end;
  work.head = 2 * static_cast<double>(o.supervised) * head * (trains ? (o.full ? 3 : 2) : 1);
  work.weight_bytes += head * o.bytes_per_weight;
  return work;
}

double DecodeFlops(const ModelConfig& c, int64_t context) {
  double flops = 2 * static_cast<double>(c.vocab) * static_cast<double>(c.hidden);
  for (const LayerConfig& layer : c.layers) {
    const int64_t keys = layer.window > 0 ? std::min(layer.window, context) : context;
    flops += 2 * LinearWeights(c) + 4 * static_cast<double>(keys) * static_cast<double>(c.q_dim());
  }
  return flops;
}

}  // namespace edgewise::model
