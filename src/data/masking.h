// Samples to tokens with a mark on every token that is learned.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "data/sample.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace edgewise::data {

enum class LossOn {
  kAssistant,  // every assistant turn that the row lets learn
  kLastTurn,   // only the last of them
  kAll,        // every token
};

// What the text of a sample is rendered and masked with.
struct MaskOptions {
  LossOn loss_on = LossOn::kAssistant;
  // What of the data is kept from becoming control tokens. kOff: data may spell control tokens, as
  // with transformers. Text rows are literal under kNonAssistant and kAll.
  text::InputGuard guard = text::InputGuard::kNonAssistant;
  // The token that ends an assistant turn; absent: what the template writes behind an answer.
  std::optional<std::string> end_of_turn = {};
  // The token behind a text row; absent: the tokenizer's end-of-sequence token. "": none.
  std::optional<std::string> end_of_text = {};
  std::vector<std::pair<std::string, text::jinja::Value>> template_kwargs = {};
  // What strftime_now() tells: held fixed, so that a resumed run sees the same tokens.
  std::tm now = FixedDate();

  static std::tm FixedDate();  // Wednesday, 1 January 2025, noon
};

struct MaskedSample {
  std::string rendered;               // empty for kTokens
  std::vector<text::TextSpan> spans;  // bytes of `rendered` that are learned
  std::vector<int32_t> ids;
  std::vector<uint8_t> mask;  // one per id: 1 when it is learned
  // A token covers the end of a prompt and the beginning of its answer; it is not learned.
  bool straddling_token = false;
};

// The learned span of a turn runs from the end of the prompt before it (with the generation
// header) to the end of its end-of-turn token. A template with {% generation %} blocks says it
// itself; otherwise the conversation is rendered up to the turn, which needs that an earlier part
// of a conversation renders the same inside of a longer one. Templates that rewrite the history
// (Qwen3 drops old <think> parts) break that: an error that says to learn the last turn only.
class Masker {
 public:
  // Keeps references: `chat` and `tokenizer` must outlive it.
  static Result<Masker> Create(const text::ChatTemplate& chat, const text::Tokenizer& tokenizer,
                               MaskOptions options);

  // Errors: the template refuses the conversation, the prefix property fails, nothing is learned.
  Result<MaskedSample> Mask(const Sample& sample) const;

  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  const MaskOptions& options() const { return options_; }
  // As found or given; empty when the template ends its turns without a control token.
  const std::string& end_of_turn() const { return end_of_turn_; }

 private:
  Masker(const text::ChatTemplate& chat, const text::Tokenizer& tokenizer, MaskOptions options)
      : chat_(&chat), tokenizer_(&tokenizer), options_(std::move(options)) {}

  Status FindEndOfTurn();
  Result<text::RenderedChat> Render(const Sample& sample, size_t turns, bool prompt) const;
  Result<std::vector<text::TextSpan>> LearnedSpans(const Sample& sample,
                                                   const text::RenderedChat& full) const;
  Result<text::TextSpan> TurnSpan(const Sample& sample, const text::RenderedChat& full,
                                  size_t turn) const;
  Result<size_t> FirstAnswerBegin(const Sample& sample, const std::string& after) const;
  Result<MaskedSample> MaskText(const Sample& sample) const;

  const text::ChatTemplate* chat_;
  const text::Tokenizer* tokenizer_;
  MaskOptions options_;
  std::string end_of_turn_;
  std::optional<int32_t> end_of_text_id_;
};

}  // namespace edgewise::data
