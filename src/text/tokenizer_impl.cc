#include "text/tokenizer_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace edgewise::text {
namespace {

// Spans are 32 bits wide and a changed text needs nine bytes per byte.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

}  // namespace

void Tokenizer::Impl::AddToken(AddedToken token) {
  const auto [it, is_new] = added_by_content.try_emplace(token.content, added.size());
  if (is_new) {
    added_by_id[token.id] = added.size();
    added.push_back(std::move(token));
  } else {
    token.id = added[it->second].id;
    added[it->second] = std::move(token);
  }
}

Status Tokenizer::Impl::Finish(const std::vector<int32_t>& also_control) {
  vocab_size = model->vocab().id_limit();
  for (const AddedToken& token : added) vocab_size = std::max(vocab_size, token.id + 1);
  for (const std::vector<int32_t>& ids : {prefix, suffix}) {
    for (int32_t id : ids) {
      if (Spelling(id)) continue;
      return BadInput(
          fmt::format("post_processor: it adds token {}, which is not in the vocabulary", id));
    }
  }
  control.assign(vocab_size, false);
  auto mark = [&](std::optional<int32_t> id) {
    if (id && *id >= 0 && *id < vocab_size) control[*id] = true;
  };
  for (const std::vector<int32_t>& ids : {also_control, prefix, suffix}) {
    for (int32_t id : ids) mark(id);
  }
  for (const std::optional<int32_t>& id : {bos, eos, pad}) mark(id);
  for (const AddedToken& token : added) {
    if (token.special) mark(token.id);
  }
  for (int32_t id = 0; id < vocab_size; ++id) {
    if (control[id]) control_ids.push_back(id);
  }

  std::vector<AddedToken> raw;
  std::vector<AddedToken> in_normalized;
  RegexScratch scratch;
  for (AddedToken& token : added) {
    token.control = control[token.id];
    token.pattern = token.content;
    if (token.normalized) {
      AlignedText text(token.content, 0);
      for (const auto& step : normalizer) EW_RETURN_IF_ERROR(step->Apply(&text, scratch));
      token.pattern = text.text();
    }
    if (token.special) special_contents.insert(token.content);
    (token.normalized ? in_normalized : raw).push_back(token);
  }
  EW_ASSIGN(raw_matcher, AddedTokenMatcher::Build(std::move(raw)));
  EW_ASSIGN(normalized_matcher, AddedTokenMatcher::Build(std::move(in_normalized)));
  return Status::Ok();
}

std::optional<std::string_view> Tokenizer::Impl::Spelling(int32_t id) const {
  const auto it = added_by_id.find(id);
  if (it != added_by_id.end()) return added[it->second].pattern;
  return model->vocab().Piece(id);
}

Status Tokenizer::Impl::Encode(std::string_view text, EncodeOptions options, Encoding* out) const {
  if (text.size() > kMaxTextBytes) {
    return InvalidArgument(
        fmt::format("a text of {} bytes is too long to encode at once: the "
                    "limit is {}",
                    text.size(), kMaxTextBytes));
  }
  std::unique_ptr<Scratch> scratch;
  {
    const std::lock_guard lock(mutex_);
    if (!pool_.empty()) {
      scratch = std::move(pool_.back());
      pool_.pop_back();
    }
  }
  if (!scratch) scratch = std::make_unique<Scratch>();

  auto add_fixed = [&](const std::vector<int32_t>& ids, uint32_t at) {
    for (int32_t id : ids) {
      out->ids.push_back(id);
      out->spans.push_back({at, at});
    }
  };
  if (options.add_special_tokens) add_fixed(prefix, 0);
  AlignedText whole = AlignedText::FromBytes(text);
  Status status = Status::Ok();
  if (!whole.text().empty()) {
    whole.Locate(options.literal, &scratch->literal);
    raw_matcher.Split(whole.text(), !options.parse_control_tokens, scratch->literal,
                      &scratch->raw_segments);
    for (size_t i = 0; i < scratch->raw_segments.size() && status.ok(); ++i) {
      const Segment segment = scratch->raw_segments[i];
      if (segment.token >= 0) {
        out->ids.push_back(segment.token);
        out->spans.push_back(whole.Source(segment.range));
      } else {
        status = EncodeText(whole.Slice(segment.range), options, *scratch, out);
      }
    }
  }
  if (options.add_special_tokens) add_fixed(suffix, static_cast<uint32_t>(text.size()));

  const std::lock_guard lock(mutex_);
  pool_.push_back(std::move(scratch));
  return status;
}

Status Tokenizer::Impl::EncodeText(AlignedText text, EncodeOptions options, Scratch& scratch,
                                   Encoding* out) const {
  for (const auto& step : normalizer) EW_RETURN_IF_ERROR(step->Apply(&text, scratch.regex));
  if (text.text().empty()) return Status::Ok();
  text.Locate(options.literal, &scratch.literal);
  normalized_matcher.Split(text.text(), !options.parse_control_tokens, scratch.literal,
                           &scratch.segments);
  const bool whole = scratch.segments.size() == 1 && scratch.segments[0].token < 0;
  for (const Segment& segment : scratch.segments) {
    if (segment.token >= 0) {
      out->ids.push_back(segment.token);
      out->spans.push_back(text.Source(segment.range));
      continue;
    }
    Pieces pieces;
    pieces.text = whole ? std::move(text) : text.Slice(segment.range);
    EW_RETURN_IF_ERROR(EncodePieces(std::move(pieces), options, scratch, out));
  }
  return Status::Ok();
}

Status Tokenizer::Impl::EncodePieces(Pieces pieces, EncodeOptions options, Scratch& scratch,
                                     Encoding* out) const {
  pieces.ranges.push_back({0, static_cast<uint32_t>(pieces.text.text().size())});
  for (const auto& step : pre_tokenizer.steps) {
    EW_RETURN_IF_ERROR(step->Apply(&pieces, scratch.regex));
  }
  // Where ranges are literal the model's own merges must not give a control token either; those
  // of the template have all been found by now.
  const std::vector<bool>* forbidden =
      options.parse_control_tokens && options.literal.empty() ? nullptr : &control;
  for (const Range& range : pieces.ranges) {
    scratch.tokens.clear();
    EW_RETURN_IF_ERROR(
        model->Tokenize(pieces.text.view(range), forbidden, scratch.model, &scratch.tokens));
    for (const WordToken& token : scratch.tokens) {
      out->ids.push_back(token.id);
      out->spans.push_back(
          pieces.text.Source({range.begin + token.begin, range.begin + token.end}));
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::text
