#include "data/masking.h"

#include <fmt/format.h>

#include <algorithm>

namespace edgewise::data {

namespace {

using text::TextSpan;
using text::jinja::Value;

Value FirstTurns(const Value& messages, size_t n) {
  const auto& items = messages.items();
  return Value::List(
      std::vector<Value>(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(n)));
}

Value Conversation(std::initializer_list<std::pair<const char*, const char*>> turns) {
  std::vector<Value> messages;
  for (const auto& [role, content] : turns) messages.push_back(text::ChatMessage(role, content));
  return Value::List(std::move(messages));
}

// Each learned turn is found by rendering the conversation twice: what a row may cost is bounded.
constexpr size_t kMaxLearnedTurns = 256;

constexpr const char* kProbeQuestion = "question";
constexpr const char* kProbeAnswer = "edgewise-answer-probe";

}  // namespace

std::tm MaskOptions::FixedDate() {
  std::tm date{};
  date.tm_year = 125;
  date.tm_mday = 1;
  date.tm_hour = 12;
  date.tm_wday = 3;
  return date;
}

Result<Masker> Masker::Create(const text::ChatTemplate& chat, const text::Tokenizer& tokenizer,
                              MaskOptions options) {
  Masker out(chat, tokenizer, std::move(options));
  if (out.options_.end_of_turn) {
    out.end_of_turn_ = *out.options_.end_of_turn;
  } else {
    EW_RETURN_IF_ERROR(out.FindEndOfTurn());
  }
  if (out.options_.end_of_text) {
    if (!out.options_.end_of_text->empty()) {
      out.end_of_text_id_ = tokenizer.TokenToId(*out.options_.end_of_text);
      if (!out.end_of_text_id_) {
        return InvalidArgument(
            fmt::format("end of text: the tokenizer has no token '{}'", *out.options_.end_of_text));
      }
    }
  } else {
    out.end_of_text_id_ = tokenizer.eos_id();
  }
  return out;
}

Status Masker::FindEndOfTurn() {
  text::ChatRequest request;
  request.messages = Conversation({{"user", kProbeQuestion}, {"assistant", kProbeAnswer}});
  request.kwargs = options_.template_kwargs;
  request.guard = text::InputGuard::kOff;
  request.now = options_.now;
  const Result<text::RenderedChat> rendered = chat_->Render(request);
  // A template that refuses two plain turns will refuse the data too, with better words.
  if (!rendered.ok()) return Status::Ok();
  const size_t at = rendered->text.rfind(kProbeAnswer);
  if (at == std::string::npos) return Status::Ok();
  const std::string behind = rendered->text.substr(at + std::string_view(kProbeAnswer).size());
  EW_ASSIGN(const text::Encoding tokens,
            tokenizer_->EncodeWithSpans(behind, {.add_special_tokens = false}));
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    if (!tokenizer_->IsControl(tokens.ids[i])) continue;
    end_of_turn_ =
        behind.substr(tokens.spans[i].begin, tokens.spans[i].end - tokens.spans[i].begin);
    // A token may take white space along; it is not part of its spelling.
    const size_t last = end_of_turn_.find_last_not_of(" \n\r\t");
    end_of_turn_.resize(last == std::string::npos ? 0 : last + 1);
    return Status::Ok();
  }
  return Status::Ok();
}

Result<text::RenderedChat> Masker::Render(const Sample& sample, size_t turns, bool prompt) const {
  text::ChatRequest request;
  request.messages = turns == sample.messages.items().size() ? sample.messages
                                                             : FirstTurns(sample.messages, turns);
  request.tools = sample.tools;
  request.add_generation_prompt = prompt;
  request.kwargs = options_.template_kwargs;
  request.guard = options_.guard;
  request.now = options_.now;
  return chat_->Render(request);
}

Result<size_t> Masker::FirstAnswerBegin(const Sample& sample, const std::string& after) const {
  // Nothing stands before the answer: the prompt is what the template begins with, then the header.
  const Result<text::RenderedChat> empty = Render(sample, 0, true);
  if (empty.ok()) {
    if (after.starts_with(empty->text)) return empty->text.size();
    const std::string with_bos = chat_->bos_token() + empty->text;
    if (after.starts_with(with_bos)) return with_bos.size();
  }
  // The template needs a message: take the header from a conversation that has one.
  text::ChatRequest probe;
  probe.messages = Conversation({{"user", kProbeQuestion}});
  probe.kwargs = options_.template_kwargs;
  probe.guard = text::InputGuard::kOff;
  probe.now = options_.now;
  EW_ASSIGN(const text::RenderedChat without, chat_->Render(probe));
  probe.add_generation_prompt = true;
  EW_ASSIGN(const text::RenderedChat with, chat_->Render(probe));
  if (with.text.starts_with(without.text) && with.text.size() > without.text.size()) {
    const std::string header = with.text.substr(without.text.size());
    const size_t at = after.find(header);
    if (at != std::string::npos) return at + header.size();
  }
  return BadInput(
      "the conversation begins with an assistant turn and the template does not show where its "
      "text begins; start with a user turn");
}

Result<TextSpan> Masker::TurnSpan(const Sample& sample, const text::RenderedChat& full,
                                  size_t turn) const {
  const auto rewritten = [&] {
    return BadInput(fmt::format(
        "the chat template renders turn {} differently inside of the whole conversation (it "
        "rewrites the history); learn the last turn only (--last-turn-only)",
        turn));
  };
  EW_ASSIGN(const text::RenderedChat after, Render(sample, turn + 1, false));
  if (!full.text.starts_with(after.text)) return rewritten();
  size_t begin = 0;
  if (turn == 0) {
    EW_ASSIGN(begin, FirstAnswerBegin(sample, after.text));
  } else {
    EW_ASSIGN(const text::RenderedChat before, Render(sample, turn, true));
    if (!after.text.starts_with(before.text)) return rewritten();
    begin = before.text.size();
  }
  size_t end = after.text.size();
  if (!end_of_turn_.empty()) {
    const size_t last = after.text.rfind(end_of_turn_);
    if (last == std::string::npos || last + end_of_turn_.size() < begin) {
      return BadInput(fmt::format("turn {} does not end with '{}'", turn, end_of_turn_));
    }
    end = last + end_of_turn_.size();
  }
  return TextSpan{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
}

Result<std::vector<TextSpan>> Masker::LearnedSpans(const Sample& sample,
                                                   const text::RenderedChat& full) const {
  if (options_.loss_on == LossOn::kAll) {
    return std::vector<TextSpan>{{0, static_cast<uint32_t>(full.text.size())}};
  }
  std::vector<size_t> turns = sample.learned;
  if (options_.loss_on == LossOn::kLastTurn) turns = {sample.learned.back()};
  std::vector<TextSpan> spans;
  if (!full.generated.empty()) {
    // The k-th {% generation %} block belongs to the k-th assistant turn, if there are as many.
    std::vector<size_t> assistants;
    for (size_t i = 0; i < sample.messages.items().size(); ++i) {
      if (sample.messages.items()[i].dict().Find("role")->str() == "assistant") {
        assistants.push_back(i);
      }
    }
    if (assistants.size() == full.generated.size()) {
      for (const size_t turn : turns) {
        const auto at = std::find(assistants.begin(), assistants.end(), turn);
        spans.push_back(full.generated[static_cast<size_t>(at - assistants.begin())]);
      }
      return spans;
    }
  }
  if (turns.size() > kMaxLearnedTurns) {
    return BadInput(fmt::format(
        "{} assistant turns are learned in one conversation, at most {} can be: split it or learn "
        "the last turn only (--last-turn-only)",
        turns.size(), kMaxLearnedTurns));
  }
  for (const size_t turn : turns) {
    EW_ASSIGN(const TextSpan span, TurnSpan(sample, full, turn));
    spans.push_back(span);
  }
  return spans;
}

Result<MaskedSample> Masker::MaskText(const Sample& sample) const {
  EW_ASSIGN(const text::Encoding tokens,
            tokenizer_->EncodeWithSpans(
                sample.text, {.add_special_tokens = true,
                              .parse_control_tokens = options_.guard == text::InputGuard::kOff}));
  MaskedSample out;
  out.rendered = sample.text;
  out.spans = {{0, static_cast<uint32_t>(sample.text.size())}};
  out.ids = tokens.ids;
  if (end_of_text_id_) out.ids.push_back(*end_of_text_id_);
  out.mask.assign(out.ids.size(), 1);
  const size_t lead = std::min(tokenizer_->prefix_ids().size(), out.ids.size());
  std::fill_n(out.mask.begin(), lead, uint8_t{0});
  return out;
}

Result<MaskedSample> Masker::Mask(const Sample& sample) const {
  if (sample.format == Format::kText) return MaskText(sample);
  MaskedSample out;
  if (sample.format == Format::kTokens) {
    for (const int32_t id : sample.ids) {
      if (id >= tokenizer_->vocab_size()) {
        return BadInput(fmt::format("input_ids holds {}, the tokenizer has {} tokens", id,
                                    tokenizer_->vocab_size()));
      }
    }
    out.ids = sample.ids;
    const bool all = options_.loss_on == LossOn::kAll;
    for (const int32_t label : sample.labels) {
      out.mask.push_back(all || label != kIgnoreLabel ? 1 : 0);
    }
    return out;
  }
  EW_ASSIGN(text::RenderedChat full, Render(sample, sample.messages.items().size(), false));
  EW_ASSIGN(out.spans, LearnedSpans(sample, full));
  EW_ASSIGN(text::Encoding tokens, text::EncodeChat(*tokenizer_, full));
  out.ids = std::move(tokens.ids);
  out.mask.reserve(out.ids.size());
  for (const TextSpan token : tokens.spans) {
    bool inside = false, touches = false;
    for (const TextSpan span : out.spans) {
      inside = inside || (span.begin <= token.begin && token.end <= span.end);
      touches = touches || (token.begin < span.end && token.end > span.begin);
    }
    out.mask.push_back(inside ? 1 : 0);
    out.straddling_token = out.straddling_token || (touches && !inside);
  }
  out.rendered = std::move(full.text);
  return out;
}

}  // namespace edgewise::data
