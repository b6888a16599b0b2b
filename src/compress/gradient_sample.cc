#include "compress/gradient_sample.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/linear_observer.h"
#include "model/parameters.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

constexpr int64_t kElement = 2;  // bf16

int64_t OutputsPerLayer(const model::ModelConfig& config) {
  int64_t n = 0;
  for (LinearKind kind : kAllLinears) n += model::ShapeOf(config, kind).out;
  return n;
}

void DropLayer(const model::Model& model, int64_t layer) {
  for (LinearKind kind : kAllLinears) {
    model.DropCached({model::WeightRole::kLinear, layer, kind});
  }
}

// An adapter on the lowest layer makes the back-propagation go all the way down.
Result<model::LoraAdapter> LowestAdapter(const model::ModelConfig& config) {
  model::LoraConfig lora;
  lora.r = 1;
  lora.targets = model::LoraConfig::Targets::kList;
  lora.target_modules = {"q_proj"};
  lora.layers_to_transform = std::vector<int64_t>{0};
  return model::LoraAdapter::Create(config, lora, /*seed=*/0);
}

model::PassOptions Options(const model::LoraAdapter& adapter, const model::ParameterSet& params,
                           const std::vector<plan::Recompute>& recompute) {
  model::PassOptions o;
  o.lora = &adapter;
  o.gradients = &params.gradients();
  o.grad_scale = 1.0;
  o.recompute = recompute;
  o.mlp_rows = 0;  // the recorder wants all rows at once
  return o;
}

}  // namespace

class GradientSample::Recorder : public model::LinearObserver {
 public:
  Recorder(GradientSample& sample, const model::Model& model) : sample_(sample), model_(model) {}
  void StartAt(int64_t token) { token_ = token; }
  void Gradient(int64_t layer, LinearKind kind, int64_t rows, const float*,
                const float* dy) override {
    // From the top down: what lies above has been used.
    if (layer + 1 < sample_.config_.num_layers() && layer != layer_) DropLayer(model_, layer + 1);
    layer_ = layer;
    if (status_.ok()) status_ = sample_.Write(layer, kind, token_, rows, dy);
  }
  const Status& status() const { return status_; }

 private:
  GradientSample& sample_;
  const model::Model& model_;
  int64_t token_ = 0, layer_ = -1;
  Status status_;
};

int64_t GradientSample::Bytes(const model::ModelConfig& config, int64_t tokens) {
  return OutputsPerLayer(config) * config.num_layers() * tokens * kElement;
}

int64_t GradientSample::PassBytes(const model::TrainingPass& pass,
                                  const model::ModelConfig& config) {
  Result<model::LoraAdapter> adapter = LowestAdapter(config);
  if (!adapter.ok()) return 0;
  const model::ParameterSet params = model::ParameterSet::ForLora(*adapter);
  const std::vector recompute(config.layers.size(), plan::Recompute::kLayer);
  return pass.MemoryNeeded(Options(*adapter, params, recompute)).total();
}

Result<std::unique_ptr<GradientSample>> GradientSample::Collect(
    model::TrainingPass& pass, const model::Model& model,
    const std::vector<const TokenBatch*>& windows, int64_t memory_bytes, const std::string& path,
    const std::atomic<bool>* stop) {
  const model::ModelConfig& config = model.config();
  std::unique_ptr<GradientSample> s(new GradientSample(config));
  for (const TokenBatch* w : windows) s->tokens_ += w->size();
  const int64_t bytes = Bytes(config, s->tokens_);
  if (bytes <= memory_bytes) {
    s->memory_ = AlignedBuffer(static_cast<size_t>(bytes));
  } else {
    EW_ASSIGN(s->file_, RandomFile::Open(path));
    EW_RETURN_IF_ERROR(s->file_->Resize(bytes));
  }
  EW_ASSIGN(model::LoraAdapter adapter, LowestAdapter(config));
  const model::ParameterSet params = model::ParameterSet::ForLora(adapter);
  const std::vector recompute(config.layers.size(), plan::Recompute::kLayer);
  Recorder recorder(*s, model);
  model::PassOptions o = Options(adapter, params, recompute);
  o.linears = &recorder;
  o.observe = [&](int64_t done, const float*) {
    if (done > 0) DropLayer(model, done - 1);
  };
  int64_t at = 0;
  for (const TokenBatch* w : windows) {
    if (stop != nullptr && stop->load()) {
      return Status(StatusCode::kInterrupted, "stopped while measuring sensitivities");
    }
    recorder.StartAt(at);
    EW_ASSIGN(const kernels::HeadLossResult loss, pass.Run(*w, o));
    EW_RETURN_IF_ERROR(recorder.status());
    if (!std::isfinite(loss.loss_sum)) {
      return BadInput("the model's loss on the calibration text is not finite");
    }
    s->labelled_ += loss.labelled;
    at += w->size();
  }
  model.DropCached({model::WeightRole::kEmbedding});
  model.DropCached({model::WeightRole::kHead});
  DropLayer(model, 0);
  return s;
}

GradientSample::~GradientSample() {
  if (file_ != nullptr) ::unlink(file_->path().c_str());
}

int64_t GradientSample::Offset(int64_t layer, LinearKind kind, int64_t token) const {
  int64_t columns = layer * OutputsPerLayer(config_);
  for (LinearKind k : kAllLinears) {
    if (k == kind) break;
    columns += model::ShapeOf(config_, k).out;
  }
  return (columns * tokens_ + token * model::ShapeOf(config_, kind).out) * kElement;
}

Status GradientSample::Write(int64_t layer, LinearKind kind, int64_t token, int64_t rows,
                             const float* dy) {
  const int64_t n = rows * model::ShapeOf(config_, kind).out;
  const int64_t offset = Offset(layer, kind, token);
  if (file_ == nullptr) {
    ConvertFromF32(DType::kBF16, dy, memory_.as<char>() + offset, n);
    return Status::Ok();
  }
  std::vector<std::byte> bytes(static_cast<size_t>(n * kElement));
  ConvertFromF32(DType::kBF16, dy, bytes.data(), n);
  EW_RETURN_IF_ERROR(file_->Write(offset, bytes));
  file_->DropCached(offset, n * kElement);
  return Status::Ok();
}

Status GradientSample::Read(int64_t layer, LinearKind kind, float* out) const {
  const int64_t n = tokens_ * model::ShapeOf(config_, kind).out;
  const int64_t offset = Offset(layer, kind, 0);
  if (file_ == nullptr) {
    ConvertToF32(DType::kBF16, memory_.as<char>() + offset, out, n);
    return Status::Ok();
  }
  std::vector<std::byte> bytes(static_cast<size_t>(n * kElement));
  EW_RETURN_IF_ERROR(file_->Read(offset, bytes));
  ConvertToF32(DType::kBF16, bytes.data(), out, n);
  return Status::Ok();
}

}  // namespace edgewise::compress
