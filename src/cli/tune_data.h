// Training and validation batches from data files, as the trainer asks for them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/tune_options.h"
#include "data/packing.h"
#include "tune/batch_source.h"

namespace edgewise::cli {

class DatasetSource : public tune::BatchSource {
 public:
  // `name` goes into the fingerprint with everything else that decides what a batch holds.
  static Result<std::unique_ptr<DatasetSource>> Create(std::vector<data::Example> examples,
                                                       data::Packing packing, int64_t max_tokens,
                                                       const data::BatchPlanOptions& options);

  int64_t batches_per_epoch() const override { return batches_; }
  int64_t max_tokens() const override { return batched_.max_batch_tokens(); }
  Result<TokenBatch> Get(int64_t epoch, int64_t index) override {
    return batched_.Batch(epoch, index);
  }
  std::string fingerprint() const override { return fingerprint_; }

  const std::vector<data::Example>& examples() const { return batched_.examples(); }

 private:
  explicit DatasetSource(data::BatchedDataset batched) : batched_(std::move(batched)) {}

  data::BatchedDataset batched_;
  int64_t batches_ = 0;
  std::string fingerprint_;
};

struct TuneData {
  std::unique_ptr<DatasetSource> train, valid;  // valid may be null
  std::string report;                           // for people
  std::string train_path;                       // the file that was read
  int64_t max_tokens = 0;                       // of any batch
};

// Reads --data and --valid-data (or the valid file of the directory, or a share of the training
// rows). Error: nothing to learn, everything that reading and masking finds.
Result<TuneData> LoadTuneData(const TuneFlags& flags, const DataPipeline& pipeline);

}  // namespace edgewise::cli
