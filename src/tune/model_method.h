// The baselines: LoRA on all layers, LoRA on the last n, full fine-tuning. One loss at the top of
// the model; back-propagation goes down to the lowest layer that is trained.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "exec/context.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/training_pass.h"
#include "tune/method.h"

namespace edgewise::tune {

enum class MethodKind { kLora, kLastN, kFull };

std::string_view MethodName(MethodKind kind);  // "lora", "last-n", "full"
Result<MethodKind> ParseMethod(std::string_view name);

struct ModelMethodOptions {
  MethodKind kind = MethodKind::kLora;
  model::LoraConfig lora;    // kLora, kLastN
  int64_t last_layers = 16;  // kLastN: LoRA on so many top layers
  uint64_t init_seed = 42;   // of LoRA's A
  std::string init_adapter;  // PEFT directory to start from instead; "": fresh
  // Of the trained layers: model::PassOptions::recompute, and its mlp_rows.
  plan::Recompute recompute = plan::Recompute::kNone;
  int64_t mlp_rows = model::kMlpRows;
  // model::PassOptions of these names; the spill has to outlive the method.
  int64_t layers_in_memory = -1;
  model::ActivationSpill* spill = nullptr;
  int64_t group = 1;  // micro-batches that go through each layer together; kFull: 1
  // Leave improbable blocks of the vocabulary out of the head's gradient (0: exact):
  // kernels::HeadLossArgs::skip_below.
  float head_skip_below = 0;
  DType base_dtype = DType::kF32;     // of the base's matrices, for the record; full is always F32
  std::string base_name;              // base_model_name_or_path of the PEFT configuration
  std::string base_directory;         // full: where config.json and tokenizer files are copied from
  model::PartTimes* times = nullptr;  // parts of the micro-batches are timed here
};

// The adapter that these options (kLora or kLastN) train, as it is before the first step.
Result<model::LoraAdapter> MakeAdapter(const model::ModelConfig& config,
                                       const ModelMethodOptions& options);
// PassOptions::recompute: every layer that back-propagation reaches, or none.
std::vector<plan::Recompute> RecomputedLayers(const model::ModelConfig& config,
                                              const model::GradientMap& wanted,
                                              plan::Recompute recompute);

class ModelMethod : public Method {
 public:
  // `model` must outlive the method; full fine-tuning makes it trainable (fp32 master weights) and
  // changes it. Batches hold up to `max_tokens` tokens. Errors: options that do not fit the model.
  static Result<std::unique_ptr<ModelMethod>> Create(ExecContext& ctx, model::Model& model,
                                                     ModelMethodOptions options,
                                                     int64_t max_tokens);

  const std::vector<model::Parameter>& params() const override { return params_->params(); }
  Status BeginStep(int64_t step, std::vector<int32_t>* active) override;
  Result<LossSum> Micro(const TokenBatch& batch, const MicroContext& context) override;
  Status Micros(std::span<const TokenBatch* const> batches, std::span<const int64_t> micros,
                MicroContext context, std::vector<LossSum>* losses) override;
  int64_t group() const override { return options_.group; }
  Result<LossSum> Evaluate(const TokenBatch& batch) override;
  report::HeldMemory Held() const override;
  Result<std::vector<ResultFile>> Files() override;
  Result<std::vector<ResultFile>> ExportFiles() override;
  Status Restore(const std::string& directory) override;
  std::string name() const override { return std::string(MethodName(options_.kind)); }
  std::string OptionsJson() const override;

  // Null for full fine-tuning.
  const model::LoraAdapter* adapter() const { return adapter_ ? &*adapter_ : nullptr; }
  const ModelMethodOptions& options() const { return options_; }
  model::PassMemory MemoryNeeded() const { return pass_.MemoryNeeded(PassOptions()); }

 private:
  ModelMethod(ExecContext& ctx, model::Model& model, ModelMethodOptions options,
              int64_t max_tokens);
  model::PassOptions PassOptions() const;

  model::Model& model_;
  ModelMethodOptions options_;
  std::optional<model::LoraAdapter> adapter_;
  std::optional<model::ParameterSet> params_;
  std::vector<plan::Recompute> recompute_;
  model::TrainingPass pass_;
};

}  // namespace edgewise::tune
