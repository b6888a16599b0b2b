// How data files are read, rendered and masked: options shared by tune and eval.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "data/dataset.h"
#include "formats/hf_dir.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace edgewise::cli {

struct DataFlags {
  int64_t max_seq_len = 0;  // 0: min(1024, the model's limit)
  bool train_on_prompt = false;
  bool last_turn_only = false;
  bool parse_control_tokens = false;
  bool skip_bad_rows = false;
  std::string columns;
  int64_t max_rows = -1;
};

void DeclareData(CLI::App& app, DataFlags& flags);
// Tokens of the longest example that is read.
int64_t MaxLength(const DataFlags& flags, int64_t max_positions);

// A model's way of turning rows into tokens. Not movable: the masker points into it.
class DataPipeline {
 public:
  // Error: the template does not parse, a column map is malformed.
  static Result<std::unique_ptr<DataPipeline>> Create(const formats::ModelLocation& location,
                                                      const text::Tokenizer& tokenizer,
                                                      const DataFlags& flags,
                                                      int64_t max_positions);
  DataPipeline(const DataPipeline&) = delete;
  DataPipeline& operator=(const DataPipeline&) = delete;

  const data::Masker& masker() const { return *masker_; }
  const data::DatasetOptions& options() const { return options_; }
  data::DatasetOptions OptionsFor(const std::string& split) const;
  // What loading found worth saying (no chat template, for example); "" when nothing.
  const std::string& warning() const { return chat_->warning(); }

 private:
  explicit DataPipeline(text::Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  text::Tokenizer tokenizer_;
  std::optional<text::ChatTemplate> chat_;
  std::optional<data::Masker> masker_;
  data::DatasetOptions options_;
};

}  // namespace edgewise::cli
