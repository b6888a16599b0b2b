// AdamW over named arrays, with clipping by the global norm.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "formats/safetensors_writer.h"
#include "formats/tensor_source.h"
#include "model/parameters.h"

namespace edgewise::tune {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  // Decoupled (arXiv 1711.05101): p *= 1 - lr * weight_decay before the update.
  double weight_decay = 0;
  // Leave arrays of one dimension (norm gains, biases) without decay. LoRA factors always decay.
  bool decay_matrices_only = false;
  double max_grad_norm = 1.0;  // 0: no clipping
  // LoRA+ (arXiv 2402.12354): the B factors of adapters ("...lora_B.weight") learn at this multiple
  // of the rate, because they start at zero.
  double lora_b_rate = 1;
};

// Error: names the option that is out of range.
Status ValidateAdamW(const AdamWOptions& options);

// The arrays of a step: indices into the parameters, ascending.
using ActiveSet = std::span<const int32_t>;

class AdamW {
 public:
  // `params` must outlive the optimiser; values and gradients are read through it. Moments are
  // fp32, 8 bytes a parameter, zero at first; each array counts its own updates, so that methods
  // which train different arrays in different steps get the right bias correction.
  AdamW(const AdamWOptions& options, std::span<const model::Parameter> params);

  // Euclidean norm of the gradients of `active`: double, in a fixed order.
  double GradNorm(ExecContext& ctx, ActiveSet active) const;
  // min(1, max_grad_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 without clipping.
  double ClipCoefficient(double norm) const;
  // One update with gradients scaled by `coefficient`, at each array's multiple of `lr`.
  void Step(ExecContext& ctx, ActiveSet active, double lr, double coefficient);

  int64_t state_bytes() const { return 2 * count_ * static_cast<int64_t>(sizeof(float)); }

  // Tensors "exp_avg.<name>", "exp_avg_sq.<name>" (F32) and "updates" (I64, one per array). The
  // writer must be used before the optimiser changes again.
  Status Save(formats::SafetensorsWriter& writer) const;
  // Error: a tensor is missing or has another shape; nothing is changed then.
  Status Load(const formats::TensorSource& source);

 private:
  const AdamWOptions options_;
  std::span<const model::Parameter> params_;
  std::vector<int64_t> offsets_;  // of each array in the moments
  std::vector<int64_t> updates_;
  std::vector<double> rates_;  // multiples of the learning rate
  int64_t count_ = 0;
  FloatBuffer m_, v_;
};

// Writer and reader of parameter values themselves, by their names, F32.
Status SaveParameters(std::span<const model::Parameter> params, formats::SafetensorsWriter& writer);
// Error: missing, of another shape, or not finite; nothing is changed then.
Status LoadParameters(const formats::TensorSource& source,
                      std::span<const model::Parameter> params);

}  // namespace edgewise::tune
