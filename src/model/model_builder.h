// Puts a Model together weight by weight. Internal to the model layer.
#pragma once

#include <memory>
#include <string>

#include "base/aligned_buffer.h"
#include "kernels/packed/packed_matrix.h"
#include "model/model.h"
#include "model/weight_table.h"
#include "tensor/tensor.h"

namespace edgewise::model {

class ModelBuilder {
 public:
  explicit ModelBuilder(ModelConfig config);

  const ModelConfig& config() const { return model_->config_; }

  // The weight is read in place from `data` (aligned for `dtype`), which `owner` keeps alive.
  void Set(const WeightId& id, DType dtype, const void* data, std::shared_ptr<const void> owner);
  // A packed matrix of the weight's shape, in memory of its own or mapped.
  void SetPacked(const WeightId& id, kernels::PackedMatrix matrix, bool mapped = false);
  // New owned storage for the weight, to be filled by the caller. Throws std::bad_alloc.
  void* Allocate(const WeightId& id, DType dtype);
  // Where mapped weights come from; kept as long as the model.
  void SetSource(std::shared_ptr<const formats::TensorSource> source) {
    model_->source_ = std::move(source);
  }
  void AddNote(std::string note) { model_->notes_.push_back(std::move(note)); }

  // Matrices that stay in their files; none of them may have been set.
  Status Stream(std::vector<StreamedMatrix> matrices, const StreamOptions& options);

  // Ties the head where the config says so.
  std::unique_ptr<Model> Finish();

 private:
  std::unique_ptr<Model> model_;
};

}  // namespace edgewise::model
