// How the buffers of a pass lie in memory: planned first (to know the size), then carved.
#pragma once

#include <cstdint>
#include <vector>

#include "model/block.h"
#include "model/config.h"
#include "model/training_pass.h"

namespace edgewise::model {

// Hands out 64-byte aligned pieces of one buffer; with a null base it only counts.
class Carver {
 public:
  explicit Carver(void* base = nullptr) : base_(static_cast<char*>(base)) {}
  float* Floats(int64_t n) {
    char* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (n * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
    return reinterpret_cast<float*>(piece);
  }
  int64_t used() const { return used_; }
  // Goes back to reuse what was handed out after `mark`; high() remembers the most that was used.
  void Rewind(int64_t mark) {
    high_ = high();
    used_ = mark;
  }
  int64_t high() const { return used_ > high_ ? used_ : high_; }

 private:
  char* base_;
  int64_t used_ = 0, high_ = 0;
};

// Which of a block's buffers are wanted.
struct BlockNeeds {
  int64_t rows = 0;
  int64_t mlp_rows = 0;   // of the MLP half; 0: it is not wanted
  bool attention = true;  // the attention half is
  bool backward = false;  // lse, rstd and what only the backward pass reads
  bool own_x_mid = true;  // false: x_mid shares the storage of x
  bool dropout = false;
  bool rounds = false;  // PassOptions::activation_bits
  const LoraAdapter* lora = nullptr;
};

// Of a layer's linears.
int64_t WidestInput(const ModelConfig& config);

// x_mid stays null when it is not wanted: the caller points it at x.
BlockActivations CarveActivations(Carver& carver, const ModelConfig& config, int64_t layer,
                                  const BlockNeeds& needs);
// Adapter buffers for the widest slot of all layers.
BlockActivations CarveSharedActivations(Carver& carver, const ModelConfig& config,
                                        const BlockNeeds& needs);
// Without a backward pass `ffn` stays null: the activations' gate serves.
BlockScratch CarveScratch(Carver& carver, const ModelConfig& config, const BlockNeeds& needs);

// The buffers of one TrainingPass::Run.
struct PassLayout {
  int64_t begin = 0, end = 0;  // layers run
  int64_t lowest = 0;          // lowest layer of the backward pass; end: none
  bool backward = false;

  struct Layer {
    float* x = nullptr;    // [rows, hidden], input of the layer
    bool spilled = false;  // nothing else is set: it lies in a slot, see CarveLayer
    plan::Recompute recompute = plan::Recompute::kNone;
    BlockActivations acts;  // what it keeps
  };
  std::vector<Layer> layers;  // of lowest .. end - 1
  int64_t spilled = 0;        // so many of them, the lowest ones
  int64_t piece_bytes = 0;    // the most of a spilled layer
  float* hidden = nullptr;    // [rows, hidden], output of the last layer
  float* dhidden = nullptr;   // [rows, hidden], the gradient on its way down
  float* final_rstd = nullptr;
  int64_t mlp_rows = 0;     // of the MLP half of `shared`
  BlockActivations shared;  // of layers that keep nothing, or not all
  BlockScratch scratch;
  // Where a layer's activations lie: its own and shared ones.
  BlockActivations ActivationsOf(const Layer& layer) const;
};

// Rows of the MLP half at a time in layers that do not keep it, of batches of so many tokens.
int64_t MlpRows(const PassOptions& options, int64_t max_tokens);

// What layer `layer` of a pass of `rows` rows keeps.
PassLayout::Layer CarveLayer(Carver& carver, const ModelConfig& config, int64_t layer, int64_t rows,
                             const PassOptions& options);

// Points everything into `activations` and `scratch` (both may count only).
PassLayout LayOut(const ModelConfig& config, int64_t max_tokens, const PassOptions& options,
                  Carver& activations, Carver& scratch);

}  // namespace edgewise::model
