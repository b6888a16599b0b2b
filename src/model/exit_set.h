// The exits of a run of adaptive layer tuning, as inference and export need them: where each one
// ends, what adapts the layers below it, and its norm and head.
//
// A run's directory holds edgewise.json (which exits there are) and edge.safetensors with
// "exit.<k>." + {"base_model.model..." LoRA factors of a frozen trunk's exit, "norm.weight",
// "lm_head.lora_A.weight", "lm_head.lora_B.weight", "lm_head.weight"}. With a cumulative trunk the
// one adapter of all exits lies beside it as PEFT writes it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "kernels/weight.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/training_pass.h"

namespace edgewise::model {

inline constexpr const char* kExitTensors = "edge.safetensors";

// Hidden states that go through layers [begin, end) with one adapter. A stream that begins above
// the embedding starts from the state of the base without adapters there.
struct ExitStream {
  LayerRange layers;
  const LoraAdapter* lora = nullptr;
};

struct TunedExit {
  int stream = 0;   // index into ExitSet::streams()
  int64_t end = 0;  // the exit looks at the state after layers [0, end)
  FloatBuffer norm, head_lora_a, head_lora_b, head;  // empty: the model's own, or none
  int64_t head_lora_rank = 0;
  float head_lora_scale = 0;
  kernels::WeightRef head_ref;  // of `head`

  ExitHead Head() const;
  // The LoRA on the head as a slot of a linear; rank 0: there is none.
  LoraSlot HeadSlot() const;
};

// The rounding of activations (PassOptions::activation_bits) that a run of `edgewise tune` was made
// with; 0 for other directories. Error: a damaged run file.
Result<int> TunedActivationBits(const std::string& run_dir);

class ExitSet {
 public:
  // Whether a directory is a run with exits of its own (more than one ordinary adapter).
  static bool Exists(const std::string& run_dir);
  // Error: files that are missing, damaged, or of another model.
  static Result<ExitSet> Load(const std::string& run_dir, const ModelConfig& config);
  // Exits of random LoRA factors after every layers/exits layers, each on the untuned base below:
  // for benchmarks.
  static Result<ExitSet> Random(const ModelConfig& config, int64_t exits, int64_t rank,
                                uint64_t seed);

  ExitSet(ExitSet&&) = default;
  ExitSet& operator=(ExitSet&&) = default;

  int size() const { return static_cast<int>(exits_.size()); }
  bool frozen_trunk() const { return frozen_; }
  const TunedExit& exit(int k) const { return exits_[static_cast<size_t>(k)]; }
  const std::vector<ExitStream>& streams() const { return streams_; }
  // PassOptions::activation_bits that the run was tuned with, which inference applies, too.
  int activation_bits() const { return activation_bits_; }
  void set_activation_bits(int bits) { activation_bits_ = bits; }
  // Where the highest stream begins: up to there the base runs without adapters too.
  int64_t trunk_end() const;

 private:
  ExitSet() = default;

  bool frozen_ = true;
  int activation_bits_ = 0;
  std::vector<std::unique_ptr<LoraAdapter>> adapters_;
  std::vector<ExitStream> streams_;
  std::vector<TunedExit> exits_;
};

}  // namespace edgewise::model
