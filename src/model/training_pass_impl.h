// What the files of TrainingPass share.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "model/block.h"
#include "model/pass_layout.h"
#include "model/rope.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"

namespace edgewise::model {

// A buffer that is given back before a larger one is taken.
Status Reserve(AlignedBuffer& buffer, int64_t bytes, const char* what);

// Whether the head is taken block by block: the fused loss does.
bool InBlocks(const Model& model, const PassOptions& options);
// Of the layers that are not in memory.
int64_t SlotBytes(const PassLayout& layout);

struct TrainingPass::Impl {
  ExecContext& ctx;
  const Model& model;
  int64_t max_tokens;
  RopeTables rope;
  AlignedBuffer activations, scratch, slots;
  // first_key of each window length in the model, for the batches at hand.
  using Keys = std::map<int64_t, std::vector<int32_t>>;
  std::vector<Keys> first_keys = std::vector<Keys>(1);
  int64_t mlp_rows = kMlpRows;  // of passes in place

  const ModelConfig& config() const { return model.config(); }

  Status Check(const TokenBatch& batch, size_t row = 0);
  Status CheckOptions(const PassOptions& options) const;
  BlockRows Rows(const TokenBatch& batch, int64_t layer, size_t row = 0) const;
  Block BlockAt(int64_t layer, const LoraAdapter* lora, const Dropout& dropout) const;
  Block BlockAt(int64_t layer, const PassOptions& options) const;
  Status RunInPlace(const TokenBatch& batch, LayerRange range, const LoraAdapter* lora,
                    int activation_bits, bool exact_forward, const LayerWeights* weights,
                    LinearObserver* observer, float* hidden);
  kernels::HeadLossArgs HeadArgs(const TokenBatch& batch, const PassOptions& options,
                                 const PassLayout& layout) const;
  Result<kernels::HeadLossResult> Head(const TokenBatch& batch, const PassOptions& options,
                                       const PassLayout& layout);
  Result<kernels::HeadLossResult> Loss(const kernels::HeadLossArgs& args, const PassOptions& o);
  // What Loss takes for logits, where it holds any.
  int64_t HeadBytes(const PassOptions& o, const PassLayout& layout, int64_t tokens) const;
  Result<std::vector<kernels::HeadLossResult>> RunRows(std::span<const GroupRow> group,
                                                       const PassOptions& common);
};

}  // namespace edgewise::model
