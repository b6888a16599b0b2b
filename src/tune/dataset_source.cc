#include "tune/dataset_source.h"

#include <fmt/format.h>

#include "tune/fingerprint.h"

namespace edgewise::tune {

Result<std::unique_ptr<DatasetSource>> DatasetSource::Create(
    std::vector<data::Example> examples, data::Packing packing, int64_t max_tokens,
    const data::BatchPlanOptions& options) {
  if (examples.empty()) return BadInput("the data set has no examples");
  data::Dataset set;
  set.examples = std::move(examples);
  // Everything that decides which tokens a micro-batch holds. Accumulation does not, and is
  // compared as an option of the run.
  const std::string fingerprint = FingerprintText(
      fmt::format("{} packing {} row {} batch {} shuffle {} seed {}", set.fingerprint(),
                  static_cast<int>(packing), max_tokens, options.batch_size, options.shuffle,
                  options.shuffle ? options.seed : 0));
  EW_ASSIGN(data::BatchedDataset batched,
            data::BatchedDataset::Create(std::move(set.examples), packing, max_tokens, options));
  return std::unique_ptr<DatasetSource>(new DatasetSource(std::move(batched), fingerprint));
}

Result<std::unique_ptr<DatasetSource>> DatasetSource::CreateForValidation(
    std::vector<data::Example> examples, data::Packing packing, int64_t max_tokens,
    int64_t batch_size) {
  data::BatchPlanOptions options;
  options.batch_size = batch_size;
  options.shuffle = false;
  return Create(std::move(examples), packing, max_tokens, options);
}

}  // namespace edgewise::tune
