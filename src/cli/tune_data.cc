#include "cli/tune_data.h"

#include <fmt/format.h>

#include "data/reader.h"

namespace edgewise::cli {

Result<TuneData> LoadTuneData(const TuneFlags& flags, const DataPipeline& pipeline) {
  TuneData out;
  EW_ASSIGN(const data::DataFiles files, data::FindDataFiles(flags.data));
  if (files.train.empty()) return NotFound(flags.data + ": there is no training file");
  out.train_path = files.train;
  EW_ASSIGN(data::Dataset train,
            data::LoadDataset(files.train, pipeline.masker(), pipeline.OptionsFor("train")));
  out.report = fmt::format("train {}: {}", files.train, data::Describe(train.report));

  std::vector<data::Example> valid;
  const std::string valid_path = flags.valid_data.empty() ? files.valid : flags.valid_data;
  if (!valid_path.empty()) {
    EW_ASSIGN(data::Dataset set,
              data::LoadDataset(valid_path, pipeline.masker(), pipeline.OptionsFor("valid")));
    out.report += fmt::format("valid {}: {}", valid_path, data::Describe(set.report));
    valid = std::move(set.examples);
  } else if (flags.val_fraction > 0 && train.examples.size() > 1) {
    EW_ASSIGN(data::SplitDataset split,
              data::SplitForValidation(std::move(train.examples), flags.val_fraction, flags.seed));
    train.examples = std::move(split.train);
    valid = std::move(split.valid);
    out.report += fmt::format("valid: {} of the training examples held out\n", valid.size());
  }

  const data::Packing packing = flags.pack ? data::Packing::kBestFit : data::Packing::kNone;
  const int64_t row = pipeline.options().max_length;
  data::BatchPlanOptions plan;
  plan.batch_size = flags.batch_size;
  plan.grad_accum = flags.grad_accum;
  plan.seed = flags.seed;
  EW_ASSIGN(out.train, tune::DatasetSource::Create(std::move(train.examples), packing, row, plan));
  out.max_tokens = out.train->max_tokens();
  if (!valid.empty()) {
    EW_ASSIGN(out.valid, tune::DatasetSource::CreateForValidation(std::move(valid), packing, row,
                                                                  flags.batch_size));
    out.max_tokens = std::max(out.max_tokens, out.valid->max_tokens());
  }
  return out;
}

}  // namespace edgewise::cli
