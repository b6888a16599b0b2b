#include "cli/data_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "infer/load_tokenizer.h"

namespace edgewise::cli {

void DeclareData(CLI::App& app, DataFlags& flags) {
  app.add_option("--max-seq-len,--max-seq-length,--cutoff-len", flags.max_seq_len,
                 "Tokens of one example; longer rows are cut (default: 1024 or the model's limit)")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--train-on-prompt,--train-on-inputs", flags.train_on_prompt,
               "Loss on every token, not on answers alone");
  app.add_flag("--last-turn-only", flags.last_turn_only, "Loss on the last answer of a chat alone");
  app.add_flag("--parse-control-tokens", flags.parse_control_tokens,
               "Control tokens that are spelt out in the data become control tokens");
  app.add_flag("--skip-bad-rows", flags.skip_bad_rows, "Leave out malformed rows and count them");
  app.add_option("--map", flags.columns, "Names of fields, for example role=from,content=value");
  app.add_option("--max-rows", flags.max_rows, "Read only so many rows");
}

int64_t MaxLength(const DataFlags& flags, int64_t max_positions) {
  return flags.max_seq_len > 0 ? flags.max_seq_len : std::min<int64_t>(1024, max_positions);
}

Result<std::unique_ptr<DataPipeline>> DataPipeline::Create(const formats::ModelLocation& location,
                                                           const text::Tokenizer& tokenizer,
                                                           const DataFlags& flags,
                                                           int64_t max_positions) {
  if (flags.train_on_prompt && flags.last_turn_only) {
    return InvalidArgument("--train-on-prompt and --last-turn-only contradict each other");
  }
  if (flags.max_seq_len == 1 || flags.max_seq_len > max_positions) {
    return InvalidArgument("--max-seq-len has to be 2 to " + std::to_string(max_positions) +
                           ", the model's limit");
  }
  std::unique_ptr<DataPipeline> p(new DataPipeline(tokenizer));
  EW_ASSIGN(text::ChatTemplate chat, infer::LoadChatTemplate(location, tokenizer));
  p->chat_.emplace(std::move(chat));
  data::MaskOptions mask;
  if (flags.train_on_prompt) mask.loss_on = data::LossOn::kAll;
  if (flags.last_turn_only) mask.loss_on = data::LossOn::kLastTurn;
  if (flags.parse_control_tokens) mask.guard = text::InputGuard::kOff;
  EW_ASSIGN(data::Masker masker, data::Masker::Create(*p->chat_, p->tokenizer_, std::move(mask)));
  p->masker_.emplace(std::move(masker));
  data::DatasetOptions& o = p->options_;
  o.max_length = MaxLength(flags, max_positions);
  o.read.max_rows = flags.max_rows;
  if (flags.skip_bad_rows) o.read.bad_rows = data::BadRows::kSkip;
  if (!flags.columns.empty()) {
    Result<data::ColumnMap> columns = data::ParseColumnMap(flags.columns);
    if (!columns.ok()) return InvalidArgument("--map: " + columns.status().message());
    o.read.columns = std::move(columns).value();
  }
  return p;
}

data::DatasetOptions DataPipeline::OptionsFor(const std::string& split) const {
  data::DatasetOptions options = options_;
  options.split = split;
  return options;
}

}  // namespace edgewise::cli
