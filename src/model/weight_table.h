// Every weight of a model by identity: name, shape, and where its pointer is kept. The one list
// that loading, saving, random initialisation and full fine-tuning walk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/weights.h"

namespace edgewise::model {

struct GradientMap;

enum class WeightRole : uint8_t {
  kEmbedding,
  kLinear,
  kBias,
  kAttnNorm,
  kMlpNorm,
  kAttnPostNorm,
  kMlpPostNorm,
  kQNorm,
  kKNorm,
  kFinalNorm,
  kHead,
};

struct WeightId {
  WeightRole role = WeightRole::kEmbedding;
  int64_t layer = -1;
  LinearKind kind = LinearKind::kQ;  // kLinear, kBias

  bool is_matrix() const {
    return role == WeightRole::kEmbedding || role == WeightRole::kLinear ||
           role == WeightRole::kHead;
  }
  bool is_norm() const { return !is_matrix() && role != WeightRole::kBias; }
};

// All weights in forward order; a tied head is not listed (it is the embedding).
std::vector<WeightId> ListWeights(const ModelConfig& config);

std::string HfName(const ModelConfig& config, const WeightId& id);  // "model.norm.weight"
std::string GgufName(const WeightId& id);                           // "output_norm.weight"
std::vector<int64_t> ShapeOf(const ModelConfig& config, const WeightId& id);

// Where the weight is kept: matrices by WeightRef, vectors by pointer.
kernels::WeightRef& MatrixOf(ModelWeights& weights, const WeightId& id);
const kernels::WeightRef& MatrixOf(const ModelWeights& weights, const WeightId& id);
const float*& VectorOf(ModelWeights& weights, const WeightId& id);
const float* VectorOf(const ModelWeights& weights, const WeightId& id);
float*& GradientOf(GradientMap& gradients, const WeightId& id);

}  // namespace edgewise::model
