#include "tune/optimizer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "kernels/adamw.h"
#include "kernels/elementwise.h"

namespace edgewise::tune {
namespace {

std::string FirstMoment(const model::Parameter& p) { return "exp_avg." + p.name; }
std::string SecondMoment(const model::Parameter& p) { return "exp_avg_sq." + p.name; }
constexpr const char* kUpdates = "updates";

// The memory of the process itself, streamed when the file is written.
formats::TensorProducer Bytes(const void* data, int64_t bytes) {
  return [data, bytes](const formats::ByteSink& sink) {
    return sink({static_cast<const std::byte*>(data), static_cast<size_t>(bytes)});
  };
}

Status AddFloats(formats::SafetensorsWriter& writer, std::string name,
                 const std::vector<int64_t>& shape, const float* data, int64_t count) {
  return writer.Add(std::move(name), DType::kF32, shape,
                    Bytes(data, count * static_cast<int64_t>(sizeof(float))));
}

Result<HostTensor> Find(const formats::TensorSource& source, const std::string& name, DType dtype,
                        const std::vector<int64_t>& shape) {
  EW_ASSIGN(HostTensor tensor, source.Get(name));
  if (tensor.view.dtype != dtype || tensor.view.shape != shape) {
    return BadInput(fmt::format("tensor {} is {} [{}], expected {} [{}]", name,
                                DTypeName(tensor.view.dtype), fmt::join(tensor.view.shape, ", "),
                                DTypeName(dtype), fmt::join(shape, ", ")));
  }
  return tensor;
}

bool Finite(const HostTensor& tensor) {
  const auto* bytes = static_cast<const std::byte*>(tensor.view.data);
  for (int64_t i = 0; i < tensor.view.elements(); ++i) {
    float value;
    std::memcpy(&value, bytes + static_cast<size_t>(i) * sizeof value, sizeof value);
    if (!std::isfinite(value)) return false;
  }
  return true;
}

}  // namespace

Status ValidateAdamW(const AdamWOptions& o) {
  const auto check = [](bool ok, const char* name, double value, const char* range) {
    if (ok) return Status::Ok();
    return InvalidArgument(fmt::format("{} {} is not {}", name, value, range));
  };
  EW_RETURN_IF_ERROR(check(o.beta1 >= 0 && o.beta1 < 1, "beta1", o.beta1, "in [0, 1)"));
  EW_RETURN_IF_ERROR(check(o.beta2 >= 0 && o.beta2 < 1, "beta2", o.beta2, "in [0, 1)"));
  EW_RETURN_IF_ERROR(check(o.eps > 0 && std::isfinite(o.eps), "epsilon", o.eps, "above 0"));
  EW_RETURN_IF_ERROR(check(o.weight_decay >= 0 && std::isfinite(o.weight_decay), "weight decay",
                           o.weight_decay, "a finite number >= 0"));
  EW_RETURN_IF_ERROR(check(o.lora_b_rate > 0 && std::isfinite(o.lora_b_rate), "LoRA+ ratio",
                           o.lora_b_rate, "a finite number above 0"));
  return check(o.max_grad_norm >= 0 && std::isfinite(o.max_grad_norm), "maximum gradient norm",
               o.max_grad_norm, "a finite number >= 0 (0: no clipping)");
}

AdamW::AdamW(const AdamWOptions& options, std::span<const model::Parameter> params)
    : options_(options), params_(params), updates_(params.size(), 0) {
  for (const model::Parameter& p : params) {
    offsets_.push_back(count_);
    count_ += p.count;
    rates_.push_back(p.name.ends_with("lora_B.weight") ? options.lora_b_rate : 1);
  }
  m_ = FloatBuffer::Zeros(count_);
  v_ = FloatBuffer::Zeros(count_);
}

double AdamW::GradNorm(ExecContext& ctx, ActiveSet active) const {
  double sum = 0;
  for (int32_t i : active) {
    const model::Parameter& p = params_[static_cast<size_t>(i)];
    sum += kernels::SumSquares(ctx, p.count, p.grad);
  }
  return std::sqrt(sum);
}

double AdamW::ClipCoefficient(double norm) const {
  if (options_.max_grad_norm <= 0) return 1;
  return std::min(1.0, options_.max_grad_norm / (norm + 1e-6));
}

void AdamW::Step(ExecContext& ctx, ActiveSet active, double lr, double coefficient) {
  for (int32_t index : active) {
    const auto i = static_cast<size_t>(index);
    const model::Parameter& p = params_[i];
    kernels::AdamWParams a;
    a.lr = static_cast<float>(lr * rates_[i]);
    a.beta1 = static_cast<float>(options_.beta1);
    a.beta2 = static_cast<float>(options_.beta2);
    a.eps = static_cast<float>(options_.eps);
    const bool decay = !options_.decay_matrices_only || p.shape.size() > 1;
    a.weight_decay = decay ? static_cast<float>(options_.weight_decay) : 0.0f;
    a.step = ++updates_[i];
    a.grad_scale = static_cast<float>(coefficient);
    kernels::AdamWStep(ctx, a, p.count, p.value, p.grad, m_.data() + offsets_[i],
                       v_.data() + offsets_[i]);
  }
}

Status AdamW::Save(formats::SafetensorsWriter& writer) const {
  for (size_t i = 0; i < params_.size(); ++i) {
    const model::Parameter& p = params_[i];
    EW_RETURN_IF_ERROR(
        AddFloats(writer, FirstMoment(p), p.shape, m_.data() + offsets_[i], p.count));
    EW_RETURN_IF_ERROR(
        AddFloats(writer, SecondMoment(p), p.shape, v_.data() + offsets_[i], p.count));
  }
  const auto n = static_cast<int64_t>(updates_.size());
  return writer.Add(kUpdates, DType::kI64, {n}, Bytes(updates_.data(), n * 8));
}

Status AdamW::Load(const formats::TensorSource& source) {
  std::vector<HostTensor> m, v;
  for (const model::Parameter& p : params_) {
    EW_ASSIGN(HostTensor first, Find(source, FirstMoment(p), DType::kF32, p.shape));
    EW_ASSIGN(HostTensor second, Find(source, SecondMoment(p), DType::kF32, p.shape));
    m.push_back(std::move(first));
    v.push_back(std::move(second));
  }
  EW_ASSIGN(HostTensor updates,
            Find(source, kUpdates, DType::kI64, {static_cast<int64_t>(updates_.size())}));
  std::vector<int64_t> counts(updates_.size());
  if (!counts.empty()) std::memcpy(counts.data(), updates.view.data, counts.size() * 8);
  for (int64_t c : counts) {
    if (c < 0) return BadInput("tensor updates holds a negative count");
  }
  updates_ = std::move(counts);
  for (size_t i = 0; i < params_.size(); ++i) {
    const auto bytes = static_cast<size_t>(params_[i].count) * sizeof(float);
    std::memcpy(m_.data() + offsets_[i], m[i].view.data, bytes);
    // A mapped file would stay in memory beside the copy.
    source.Drop(FirstMoment(params_[i]));
    std::memcpy(v_.data() + offsets_[i], v[i].view.data, bytes);
    source.Drop(SecondMoment(params_[i]));
  }
  return Status::Ok();
}

Status SaveParameters(std::span<const model::Parameter> params,
                      formats::SafetensorsWriter& writer) {
  for (const model::Parameter& p : params) {
    EW_RETURN_IF_ERROR(AddFloats(writer, p.name, p.shape, p.value, p.count));
  }
  return Status::Ok();
}

Status LoadParameters(const formats::TensorSource& source,
                      std::span<const model::Parameter> params) {
  std::vector<HostTensor> tensors;
  for (const model::Parameter& p : params) {
    EW_ASSIGN(HostTensor tensor, Find(source, p.name, DType::kF32, p.shape));
    if (!Finite(tensor)) return BadInput(fmt::format("tensor {} is not finite", p.name));
    source.Drop(p.name);
    tensors.push_back(std::move(tensor));
  }
  for (size_t i = 0; i < params.size(); ++i) {
    std::memcpy(params[i].value, tensors[i].view.data,
                static_cast<size_t>(params[i].count) * sizeof(float));
    source.Drop(params[i].name);
  }
  return Status::Ok();
}

}  // namespace edgewise::tune
