// A model ready to talk: weights, tokenizer, optional adapter, and what its files say about how to
// generate. One session belongs to one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "formats/hf_dir.h"
#include "infer/sampler.h"
#include "infer/token_model.h"
#include "infer/vote_policy.h"
#include "model/exit_set.h"
#include "model/lora.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace edgewise::infer {

struct SessionOptions {
  model::LoadOptions load;
  // A PEFT adapter directory, or the run directory of `edgewise tune`; "": none. A run of full
  // fine-tuning holds a whole model, which then takes the place of the base's weights.
  std::string adapter;
  model::KvForm kv_form = model::KvForm::kF32;
  int64_t max_context = 0;  // 0: the model's limit
  // Of a run with exits: "" (the run's own rule), a voting rule, or "single:k" for one exit.
  std::string vote;
  // A token ends at the first exit whose most likely continuation has this probability; 0: never,
  // negative: as the run says.
  double stop_above = -1;
  // PassOptions::activation_bits; negative: what the run was tuned with (`--fake-quant`), or 0.
  int activation_bits = -1;
};

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 256;
  std::vector<std::string> stop;  // ends before the first of these; never part of the text
  bool ignore_eos = false;
  bool skip_special_tokens = true;  // leave control tokens out of the text
  const std::atomic<bool>* cancel = nullptr;
};

struct Generation {
  std::string text;          // without the stop string
  std::vector<int32_t> ids;  // every id drawn, the end-of-sequence token included
  std::string finish;        // "stop" (end token or stop string), "length", "cancelled"
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;  // of the prompt, still in the cache from the call before
  double prefill_seconds = 0;
  double decode_seconds = 0;
  // Of decoding; 0 when nothing was decoded after the first token.
  double tokens_per_second = 0;
  // Of a run with exits: how many of the tokens ended at each of them.
  std::vector<int64_t> decided;
};

// What a model's files recommend; absent values keep their defaults.
struct GenerationDefaults {
  std::vector<int32_t> eos_ids;  // union of generation_config.json, tokenizer and config.json
  SamplingOptions sampling;      // generation_config.json over the defaults of SamplingOptions
};

class Session {
 public:
  // `name`: directory, GGUF file or hub id in the local cache. `ctx` must outlive the session.
  static Result<std::unique_ptr<Session>> Open(ExecContext& ctx, const std::string& name,
                                               const SessionOptions& options = {});

  // Called with each piece of text as it becomes certain; false cancels.
  using OnText = std::function<bool(std::string_view)>;

  // Continues `prompt` (token ids, at least one). What the prompt shares with the tokens already in
  // the cache is not computed again. Error: prompt too long for the context, ids out of range.
  Result<Generation> Generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                              const OnText& on_text = {});

  ExecContext& exec() { return ctx_; }
  const model::Model& model() const { return *model_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  const model::LoraAdapter* adapter() const { return adapter_ ? &*adapter_ : nullptr; }
  const formats::ModelLocation& location() const { return location_; }
  const GenerationDefaults& defaults() const { return defaults_; }
  // false for ids that no token stands behind: such an id is never drawn.
  std::vector<bool> DrawableIds() const;
  // The exits of a run of adaptive layer tuning and how they vote; null for other adapters.
  const model::ExitSet* exits() const { return exits_ ? &*exits_ : nullptr; }
  int activation_bits() const { return options_.activation_bits; }
  Voter* voter() { return voter_ ? &*voter_ : nullptr; }
  // Decodes in a context of so many tokens from here on; forgets what the decoder has read.
  void LimitContext(int64_t tokens);
  // Created on first use. Shares the session's cache: Generate reuses what is in it.
  Result<TokenModel*> decoder();

 private:
  explicit Session(ExecContext& ctx) : ctx_(ctx) {}

  ExecContext& ctx_;
  SessionOptions options_;
  formats::ModelLocation location_;
  std::unique_ptr<model::Model> model_;
  std::optional<model::LoraAdapter> adapter_;
  std::optional<text::Tokenizer> tokenizer_;
  GenerationDefaults defaults_;
  Status OpenExits();

  std::optional<model::ExitSet> exits_;
  std::optional<Voter> voter_;
  std::unique_ptr<TokenModel> decoder_;
  std::vector<int32_t> cached_;  // tokens in the decoder's cache
};

// Reads generation_config.json beside the model when there is one.
Result<GenerationDefaults> ReadGenerationDefaults(const formats::ModelLocation& location,
                                                  const model::ModelConfig& config,
                                                  const text::Tokenizer& tokenizer);

}  // namespace edgewise::infer
