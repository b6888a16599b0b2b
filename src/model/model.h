// A model: description, weights and the storage behind them (mapped files or owned buffers).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "model/config.h"
#include "model/weight_stream.h"
#include "model/weight_table.h"
#include "model/weights.h"

namespace edgewise::formats {
class TensorSource;
}

namespace edgewise::model {

enum class StorageDType { kAsStored, kF32, kBF16, kF16 };
// "as-stored", "fp32", "bf16", "fp16" (and "f32", "float32", ...). Error: lists them.
Result<StorageDType> ParseStorageDType(std::string_view text);

struct LoadOptions {
  // Type in which the matrices are held; norms and biases are always fp32. kAsStored maps what the
  // kernels can read in place and converts the rest (quantised GGUF blocks become fp32 then, but
  // for keep_quant). Packed weights stay packed with kAsStored and are unpacked with the others.
  StorageDType storage = StorageDType::kAsStored;
  // Fail when a weight is NaN or infinite (reads the whole file).
  bool check_finite = false;
  // GGUF: blocks of the types that have a packed form (Q4_0 .. Q6_K) are held and computed on as
  // they are, value for value, in about the bytes that the file has for them.
  bool keep_quant = false;
  // With a budget, matrices stay in their files and are read as they are needed. Safetensors only,
  // and in the type in which they are stored.
  StreamOptions stream = {};
  // How products with packed matrices are cut on this machine; null: as the kernels like. Has to
  // outlive a streamed model.
  const kernels::KernelTuning* tuning = nullptr;
  // Of a model that is gone through part by part: the weights that are loaded, the others are null.
  // Empty: all. With tied weights the embedding is the head.
  std::function<bool(const WeightId&)> only = {};
};

class Model {
 public:
  // `path`: a Hugging Face directory (one or many safetensors files, config of transformers v4 or
  // v5) or a .gguf file. Every tensor's shape is checked against the config; missing tensors are
  // errors that name them, unexpected ones are listed in notes().
  static Result<std::unique_ptr<Model>> Load(const std::string& path, LoadOptions options = {});

  // Uniform weights of mean 0 and standard deviation 0.02 (norm gains 1, biases 0), a pure function
  // of (config, seed): for benchmarks and tests. `dtype`: kF32, kF16 or kBF16.
  static Result<std::unique_ptr<Model>> Random(const ModelConfig& config, uint64_t seed,
                                               DType dtype = DType::kF32);

  // Wraps weights whose storage `owners` keeps alive (a compressed base). Error: shapes that do not
  // fit the config.
  static Result<std::unique_ptr<Model>> FromWeights(
      ModelConfig config, ModelWeights weights, std::vector<std::shared_ptr<const void>> owners);

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }

  // Copies every weight into owned, writable fp32 storage: the master weights of full fine-tuning.
  // Packed weights cannot be made trainable (error). Pointers taken before are stale afterwards.
  Status MakeTrainable();
  bool trainable() const { return trainable_; }
  // Writable values of a trainable model, null otherwise (weight_table.h lists the weights).
  float* MutableData(const WeightId& id);

  // Bytes of a weight that lie in a mapped file, 0 when it is held in memory.
  int64_t MappedBytes(const WeightId& id) const;
  // Tells the system that the pages of a mapped weight need not stay in memory for now.
  void DropCached(const WeightId& id) const;

  int64_t weight_bytes() const;
  // Of its matrices, those in memory of their own: neither mapped nor streamed.
  int64_t allocated_bytes() const;
  // Null unless the matrices are streamed: then a matrix is only there while it is held
  // (held_weights.h).
  WeightStream* stream() const { return stream_.get(); }
  // What loading found worth saying: tensors that no part of the model uses, and the like.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  friend class ModelBuilder;
  Model() = default;

  ModelConfig config_;
  ModelWeights weights_;
  std::vector<std::shared_ptr<const void>> owners_;
  std::vector<std::string> notes_;
  std::shared_ptr<const formats::TensorSource> source_;  // that mapped weights come from, or null
  std::set<const void*> allocated_;                      // weights that are not mapped
  bool trainable_ = false;
  std::unique_ptr<WeightStream> stream_;  // points into weights_
};

}  // namespace edgewise::model
