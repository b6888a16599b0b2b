// Training and validation batches from data files, as the trainer asks for them.
#pragma once

#include <memory>
#include <string>

#include "cli/tune_options.h"
#include "tune/dataset_source.h"

namespace edgewise::cli {

struct TuneData {
  std::unique_ptr<tune::DatasetSource> train, valid;  // valid may be null
  std::string report;                                 // for people
  std::string train_path;                             // the file that was read
  int64_t max_tokens = 0;                             // of any batch
};

// Reads --data and --valid-data (or the valid file of the directory, or a share of the training
// rows). Error: nothing to learn, everything that reading and masking finds.
Result<TuneData> LoadTuneData(const TuneFlags& flags, const DataPipeline& pipeline);

}  // namespace edgewise::cli
