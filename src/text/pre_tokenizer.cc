#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <utility>

#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr int kMaxNesting = 8;

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// \w of the Rust regex crate (UTS #18), which this one pre-tokenizer uses.
constexpr std::string_view kNotWordOrSpaceRuns =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|)"
    R"([^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}\s]+)";

class Split final : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  Status Apply(Pieces* pieces, RegexScratch& scratch) const override {
    std::vector<Range> out;
    std::vector<Range> matches;
    for (const Range& range : pieces->ranges) {
      EW_RETURN_IF_ERROR(pattern_.FindAll(pieces->text.view(range), scratch, &matches));
      SplitAt(range, matches, behavior_, invert_, &out);
    }
    pieces->ranges = std::move(out);
    return Status::Ok();
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Rewrites every piece; the pieces then lie side by side in the new text.
template <typename Rewrite>
void RewritePieces(Pieces* pieces, const Rewrite& rewrite) {
  Pieces out;
  out.text.Reserve(pieces->text.text().size() + pieces->ranges.size());
  for (const Range& range : pieces->ranges) {
    const auto begin = static_cast<uint32_t>(out.text.text().size());
    rewrite(pieces->text, range, &out.text);
    out.ranges.push_back({begin, static_cast<uint32_t>(out.text.text().size())});
  }
  *pieces = std::move(out);
}

// The first character of the range and what it stands for.
TextSpan FirstCharSource(const AlignedText& text, Range range) {
  const auto length = static_cast<uint32_t>(Utf8Length(text.text()[range.begin]));
  return text.Source({range.begin, range.begin + length});
}

class PrefixSpace final : public PreTokenizer {
 public:
  Status Apply(Pieces* pieces, RegexScratch&) const override {
    RewritePieces(pieces, [](const AlignedText& from, Range range, AlignedText* out) {
      if (from.text()[range.begin] != ' ') out->Append(" ", FirstCharSource(from, range));
      out->AppendFrom(from, range);
    });
    return Status::Ok();
  }
};

class ToByteChars final : public PreTokenizer {
 public:
  Status Apply(Pieces* pieces, RegexScratch&) const override {
    RewritePieces(pieces, AppendByteChars);
    return Status::Ok();
  }
};

enum class PrependScheme { kFirst, kNever, kAlways };

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme)
      : replacement_(std::move(replacement)), scheme_(scheme) {}

  Status Apply(Pieces* pieces, RegexScratch&) const override {
    RewritePieces(pieces, [this](const AlignedText& from, Range range, AlignedText* out) {
      const std::string_view piece = from.view(range);
      const TextSpan first = FirstCharSource(from, range);
      const bool marked = piece[0] == ' ' || piece.substr(0, replacement_.size()) == replacement_;
      if (!marked && (scheme_ == PrependScheme::kAlways ||
                      (scheme_ == PrependScheme::kFirst && first.begin == 0))) {
        out->Append(replacement_, first);
      }
      for (uint32_t done = range.begin; done < range.end;) {
        const size_t space = from.text().find(' ', done);
        const auto stop = static_cast<uint32_t>(std::min<size_t>(space, range.end));
        out->AppendFrom(from, {done, stop});
        if (stop < range.end) out->Append(replacement_, from.Source({stop, stop + 1}));
        done = stop + 1;
      }
    });
    return Status::Ok();
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
};

void AddSplit(Pattern pattern, SplitBehavior behavior, bool invert, PreTokenizerSteps* out) {
  out->steps.push_back(std::make_unique<Split>(std::move(pattern), behavior, invert));
}

Status ParseMetaspace(const JsonObject& json, PreTokenizerSteps* out) {
  EW_ASSIGN(const std::string_view replacement, json.String("replacement"));
  if (!SingleChar(replacement)) {
    return BadInput(fmt::format("{} is not one character", json.Path("replacement")));
  }
  EW_ASSIGN(const std::optional<std::string_view> scheme, json.OptionalString("prepend_scheme"));
  EW_ASSIGN(const bool add_prefix_space, json.BoolOr("add_prefix_space", true));
  EW_ASSIGN(const bool split, json.BoolOr("split", true));
  PrependScheme prepend = PrependScheme::kAlways;
  if (scheme == "first") {
    prepend = PrependScheme::kFirst;
  } else if (scheme == "never" || (!scheme && !add_prefix_space)) {
    prepend = PrependScheme::kNever;
  } else if (scheme && scheme != "always") {
    return BadInput(fmt::format("{}: '{}' is not first, never or always",
                                json.Path("prepend_scheme"), *scheme));
  }
  if (!add_prefix_space && prepend != PrependScheme::kNever) {
    return BadInput(fmt::format("{} contradicts prepend_scheme", json.Path("add_prefix_space")));
  }
  out->steps.push_back(std::make_unique<Metaspace>(std::string(replacement), prepend));
  if (split) {
    AddSplit(Pattern::Literal(std::string(replacement)), SplitBehavior::kMergedWithNext, false,
             out);
  }
  return Status::Ok();
}

Status ParseByteLevel(const JsonObject& json, PreTokenizerSteps* out) {
  EW_ASSIGN(const bool prefix_space, json.BoolOr("add_prefix_space", true));
  EW_ASSIGN(const bool use_regex, json.BoolOr("use_regex", true));
  if (prefix_space) out->steps.push_back(std::make_unique<PrefixSpace>());
  if (use_regex) {
    EW_ASSIGN(Pattern pattern, Pattern::FromRegex(kGpt2Regex));
    AddSplit(std::move(pattern), SplitBehavior::kIsolated, false, out);
  }
  out->ends_in_byte_level = true;
  return Status::Ok();
}

Status ParseSplit(const JsonObject& json, PreTokenizerSteps* out) {
  EW_ASSIGN(Pattern pattern, Pattern::FromJson(json));
  EW_ASSIGN(const std::string_view name, json.String("behavior"));
  EW_ASSIGN(const SplitBehavior behavior, ParseSplitBehavior(name, json.where));
  EW_ASSIGN(const bool invert, json.BoolOr("invert", false));
  AddSplit(std::move(pattern), behavior, invert, out);
  return Status::Ok();
}

Status Parse(const JsonObject& json, int depth, PreTokenizerSteps* out) {
  EW_ASSIGN(const std::string_view type, json.String("type"));
  if (type == "Sequence") {
    if (depth >= kMaxNesting) return BadInput(fmt::format("{}: nested too deeply", json.where));
    EW_ASSIGN(const dom::array parts, json.Array("pretokenizers"));
    size_t index = 0;
    for (dom::element part : parts) {
      EW_ASSIGN(const JsonObject step,
                JsonObject::From(part, fmt::format("{}.pretokenizers[{}]", json.where, index++)));
      EW_RETURN_IF_ERROR(Parse(step, depth + 1, out));
    }
    return Status::Ok();
  }
  // What follows the byte level must see the characters.
  MapBytesToChars(out);
  if (type == "Split") return ParseSplit(json, out);
  if (type == "ByteLevel") return ParseByteLevel(json, out);
  if (type == "Metaspace") return ParseMetaspace(json, out);
  if (type == "Digits") {
    EW_ASSIGN(const bool individual, json.BoolOr("individual_digits", false));
    AddSplit(Pattern::Class(IsNumeric),
             individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false, out);
  } else if (type == "Punctuation") {
    EW_ASSIGN(const std::optional<std::string_view> name, json.OptionalString("behavior"));
    EW_ASSIGN(const SplitBehavior behavior,
              ParseSplitBehavior(name.value_or("Isolated"), json.where));
    AddSplit(Pattern::Class(IsPunctuation), behavior, false, out);
  } else if (type == "Whitespace") {
    EW_ASSIGN(Pattern pattern, Pattern::FromRegex(kNotWordOrSpaceRuns));
    AddSplit(std::move(pattern), SplitBehavior::kRemoved, true, out);
  } else if (type == "WhitespaceSplit") {
    AddSplit(Pattern::Class(IsWhitespace), SplitBehavior::kRemoved, false, out);
  } else if (type == "BertPreTokenizer") {
    AddSplit(Pattern::Class(IsWhitespace), SplitBehavior::kRemoved, false, out);
    AddSplit(Pattern::Class(IsPunctuation), SplitBehavior::kIsolated, false, out);
  } else if (type == "CharDelimiterSplit") {
    EW_ASSIGN(const std::string_view delimiter, json.String("delimiter"));
    if (!SingleChar(delimiter)) {
      return BadInput(fmt::format("{} is not one character", json.Path("delimiter")));
    }
    AddSplit(Pattern::Literal(std::string(delimiter)), SplitBehavior::kRemoved, false, out);
  } else {
    return Unsupported(
        fmt::format("{}: pre-tokenizer of type '{}' is not known here", json.where, type));
  }
  return Status::Ok();
}

}  // namespace

void MapBytesToChars(PreTokenizerSteps* steps) {
  if (!steps->ends_in_byte_level) return;
  steps->steps.push_back(std::make_unique<ToByteChars>());
  steps->ends_in_byte_level = false;
}

Status ParsePreTokenizer(const JsonObject& json, PreTokenizerSteps* out) {
  return Parse(json, 0, out);
}

Result<PreTokenizerSteps> MakeByteLevelSplits(const std::vector<std::string>& expressions) {
  PreTokenizerSteps out;
  for (const std::string& expression : expressions) {
    EW_ASSIGN(Pattern pattern, Pattern::FromRegex(expression));
    AddSplit(std::move(pattern), SplitBehavior::kIsolated, false, &out);
  }
  out.ends_in_byte_level = true;
  return out;
}

}  // namespace edgewise::text
