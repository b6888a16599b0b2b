// A tuning step of a model as data for the scheduler.
#pragma once

#include "base/status.h"
#include "model/config.h"
#include "model/lora.h"
#include "model/model.h"
#include "plan/workload.h"

namespace edgewise::model {

enum class WorkloadMethod { kLora, kLastN, kFull, kEdge };
Result<WorkloadMethod> ParseWorkloadMethod(std::string_view name);

// How the weights of a shape without weights would be held; of a model they are as they are.
struct WeightForm {
  int bits = 16;  // of the linears; 16: half precision, 32: fp32, else packed
  double sparsity = 0;
  bool blocks = false;  // zeros in whole blocks
  int head_bits = 8;    // of embedding and head, when the linears are packed
};

struct WorkloadOptions {
  WorkloadMethod method = WorkloadMethod::kLora;
  int64_t tokens = 512;  // of a micro-batch
  int64_t micro_batches = 1;
  int64_t rank = 8;
  int64_t last_layers = 16;
  // kEdge: 0 is min(4, tuned layers); the step described is that of the last window.
  int64_t exits = 0;
  int64_t first_layer = 0;      // kEdge: layers below this one are never tuned
  LayerRange window = {0, -1};  // kEdge: this window instead (end >= 0)
  bool trunk = false;           // kEdge: the layers below the window are computed in the step
  int64_t head_rank = 0;        // kEdge: LoRA on the head
  bool integer_backward = false;
  float head_skip_below = 0;    // kernels::HeadLossArgs::skip_below
  bool whole_head = false;      // the head is wanted at once, not block by block
  double head_kept_share = -1;  // share of the blocks that it leaves in the gradient; -1: unknown
  double supervised = 1;        // share of the tokens that carry loss
  int64_t document_tokens = 0;  // mean length of the documents in a micro-batch; 0: a single one
  plan::Recompute recompute = plan::Recompute::kNone;
  // Through the MLP at a time, in layers that do not keep it (PassOptions::mlp_rows); 0: all.
  int64_t mlp_tokens = plan::kMlpTokens;
  WeightForm form;
  int64_t runtime_bytes = int64_t{24} << 20;
  int64_t threads = 2;
};

// `model`: whose packed sizes and bit-widths are taken; null: options.form. Error: a method and
// sizes that do not go together.
Result<plan::Workload> DescribeStep(const ModelConfig& config, const Model* model,
                                    const WorkloadOptions& options);
// The layers of `range` upwards without adapter, loss or gradient: what makes the states below a
// window, or validates.
Result<plan::Workload> DescribeForward(const ModelConfig& config, const Model* model,
                                       LayerRange range, const WorkloadOptions& options);

}  // namespace edgewise::model
