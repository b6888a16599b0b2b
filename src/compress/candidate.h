// One layer under the quick methods: what the sensitivity of whole layers is measured with.
#pragma once

#include <array>
#include <vector>

#include "base/aligned_buffer.h"
#include "compress/prune.h"
#include "compress/rtn.h"
#include "compress/table.h"
#include "kernels/weight_rows.h"
#include "model/config.h"
#include "model/weights.h"

namespace edgewise::compress {

// The dense weights of one layer, and one compressed form of them at a time.
class Candidate {
 public:
  Candidate(const model::ModelConfig& config, const model::LayerWeights& layer) : layer_(layer) {
    for (model::LinearKind kind : model::kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config, kind);
      dense_[static_cast<size_t>(kind)] = FloatBuffer(shape.out * shape.in);
      kernels::WeightRowsToF32(layer[kind].weight, 0, shape.out,
                               dense_[static_cast<size_t>(kind)].data());
      made_[static_cast<size_t>(kind)] = FloatBuffer(shape.out * shape.in);
    }
  }

  const float* dense(model::LinearKind kind) const {
    return dense_[static_cast<size_t>(kind)].data();
  }

  // Wanda, then round to nearest, into the candidate's own buffer.
  const float* Make(model::LinearKind kind, const Option& option, int64_t group,
                    const std::vector<float>& input_norm) {
    const kernels::WeightRef& w = layer_[kind].weight;
    const float* from = dense(kind);
    float* to = made_[static_cast<size_t>(kind)].data();
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
    for (model::LinearKind kind : model::kAllLinears) {
      const kernels::WeightRef& old = layer_[kind].weight;
      w[kind].weight =
          kernels::WeightRef::Dense(made_[static_cast<size_t>(kind)].data(), old.rows, old.cols);
    }
    return w;
  }

 private:
  const model::LayerWeights& layer_;
  std::array<FloatBuffer, model::kLinearKinds> dense_, made_;
};

}  // namespace edgewise::compress
