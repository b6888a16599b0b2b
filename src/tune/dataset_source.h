// Batches of a packed data set.
#pragma once

#include <memory>
#include <string>

#include "data/packing.h"
#include "tune/batch_source.h"

namespace edgewise::tune {

class DatasetSource : public BatchSource {
 public:
  // Error: no examples, or one longer than max_tokens.
  static Result<std::unique_ptr<DatasetSource>> Create(std::vector<data::Example> examples,
                                                       data::Packing packing, int64_t max_tokens,
                                                       const data::BatchPlanOptions& options);
  // For validation: in order, never shuffled.
  static Result<std::unique_ptr<DatasetSource>> CreateForValidation(
      std::vector<data::Example> examples, data::Packing packing, int64_t max_tokens,
      int64_t batch_size);

  int64_t batches_per_epoch() const override { return batches_; }
  int64_t max_tokens() const override { return batched_.max_batch_tokens(); }
  Result<TokenBatch> Get(int64_t epoch, int64_t index) override {
    return batched_.Batch(epoch, index);
  }
  std::string fingerprint() const override { return fingerprint_; }
  const data::BatchedDataset& dataset() const { return batched_; }

 private:
  DatasetSource(data::BatchedDataset batched, std::string fingerprint)
      : batched_(std::move(batched)),
        batches_(batched_.plan().micro_batches_per_epoch()),
        fingerprint_(std::move(fingerprint)) {}

  data::BatchedDataset batched_;
  int64_t batches_;
  std::string fingerprint_;
};

}  // namespace edgewise::tune
