#include "text/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <utility>

#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr int kMaxNesting = 8;

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  Status Apply(AlignedText* text, RegexScratch&) const override {
    PrependTo(prefix_, text);
    return Status::Ok();
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  Status Apply(AlignedText* text, RegexScratch& scratch) const override {
    std::vector<Range> matches;
    EW_RETURN_IF_ERROR(pattern_.FindAll(text->text(), scratch, &matches));
    if (matches.empty()) return Status::Ok();
    AlignedText out;
    out.Reserve(text->text().size() + matches.size() * content_.size());
    uint32_t previous = 0;
    for (const Range& match : matches) {
      out.AppendFrom(*text, {previous, match.begin});
      // An empty match inserts: as the library, it counts as part of what comes before.
      if (!match.empty()) {
        out.Append(content_, text->Source(match));
      } else if (match.begin > 0) {
        out.Append(content_, text->Source({match.begin - 1, match.begin}));
      } else {
        out.Append(content_, {});
      }
      previous = match.end;
    }
    out.AppendFrom(*text, {previous, static_cast<uint32_t>(text->text().size())});
    *text = std::move(out);
    return Status::Ok();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Status Apply(AlignedText* text, RegexScratch&) const override {
    const std::string& s = text->text();
    Range keep{0, static_cast<uint32_t>(s.size())};
    while (left_ && !keep.empty()) {
      size_t next = keep.begin;
      if (!IsWhitespace(NextChar(s, &next))) break;
      keep.begin = static_cast<uint32_t>(next);
    }
    while (right_ && !keep.empty()) {
      size_t start = 0;
      if (!IsWhitespace(CharBefore(s, keep.end, &start))) break;
      keep.end = static_cast<uint32_t>(start);
    }
    if (keep.size() != s.size()) *text = text->Slice(keep);
    return Status::Ok();
  }

 private:
  bool left_, right_;
};

// Changes characters one by one. `map` appends what `c` becomes; nothing drops it.
class MapChars final : public Normalizer {
 public:
  using Map = void (*)(char32_t c, std::string* out);
  explicit MapChars(Map map) : map_(map) {}
  Status Apply(AlignedText* text, RegexScratch&) const override {
    const std::string& s = text->text();
    AlignedText out;
    out.Reserve(s.size());
    std::string mapped;
    for (size_t pos = 0; pos < s.size();) {
      const auto begin = static_cast<uint32_t>(pos);
      mapped.clear();
      map_(NextChar(s, &pos), &mapped);
      out.Append(mapped, text->Source({begin, static_cast<uint32_t>(pos)}));
    }
    *text = std::move(out);
    return Status::Ok();
  }

 private:
  Map map_;
};

class ByteLevelNormalizer final : public Normalizer {
 public:
  Status Apply(AlignedText* text, RegexScratch&) const override {
    AlignedText out;
    AppendByteChars(*text, {0, static_cast<uint32_t>(text->text().size())}, &out);
    *text = std::move(out);
    return Status::Ok();
  }
};

void Lowercase(char32_t c, std::string* out) {
  // The only character whose lower case is two (SpecialCasing.txt, unconditional).
  if (c == 0x130) {
    out->append("i\xCC\x87");
    return;
  }
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

void StripAccents(char32_t c, std::string* out) {
  if (!IsMark(c)) AppendUtf8(c, out);
}

// The cleaning of neural machine translation models, as the library has it.
void Nmt(char32_t c, std::string* out) {
  if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
      c == 0x9F) {
    return;
  }
  const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
  AppendUtf8(space ? U' ' : c, out);
}

Result<std::string> DecodeBase64(std::string_view in, std::string_view where) {
  std::string out;
  out.reserve(in.size() / 4 * 3);
  uint32_t bits = 0;
  int held = 0;
  for (char c : in) {
    if (c == '=') break;
    int value = -1;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    if (c >= 'a' && c <= 'z') value = c - 'a' + 26;
    if (c >= '0' && c <= '9') value = c - '0' + 52;
    if (c == '+') value = 62;
    if (c == '/') value = 63;
    if (value < 0) return BadInput(fmt::format("{} is not base64", where));
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xFFFFFF;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out.push_back(static_cast<char>(bits >> held & 0xFF));
    }
  }
  return out;
}

Status Parse(const JsonObject& json, int depth, NormalizerSteps* steps);

Status ParseSequence(const JsonObject& json, int depth, NormalizerSteps* steps) {
  if (depth >= kMaxNesting) return BadInput(fmt::format("{}: nested too deeply", json.where));
  EW_ASSIGN(const dom::array parts, json.Array("normalizers"));
  size_t index = 0;
  for (dom::element part : parts) {
    EW_ASSIGN(const JsonObject step,
              JsonObject::From(part, fmt::format("{}.normalizers[{}]", json.where, index++)));
    EW_RETURN_IF_ERROR(Parse(step, depth + 1, steps));
  }
  return Status::Ok();
}

Status Parse(const JsonObject& json, int depth, NormalizerSteps* steps) {
  EW_ASSIGN(const std::string_view type, json.String("type"));
  if (type == "Sequence") return ParseSequence(json, depth, steps);
  if (type == "Prepend") {
    EW_ASSIGN(const std::string_view prefix, json.String("prepend"));
    steps->push_back(MakePrepend(std::string(prefix)));
  } else if (type == "Replace") {
    EW_ASSIGN(Pattern pattern, Pattern::FromJson(json));
    EW_ASSIGN(const std::string_view content, json.String("content"));
    steps->push_back(std::make_unique<Replace>(std::move(pattern), std::string(content)));
  } else if (type == "Strip") {
    EW_ASSIGN(const bool left, json.Bool("strip_left"));
    EW_ASSIGN(const bool right, json.Bool("strip_right"));
    steps->push_back(std::make_unique<Strip>(left, right));
  } else if (type == "NFC") {
    steps->push_back(MakeNormalForm(NormalForm::kNfc));
  } else if (type == "NFD") {
    steps->push_back(MakeNormalForm(NormalForm::kNfd));
  } else if (type == "NFKC") {
    steps->push_back(MakeNormalForm(NormalForm::kNfkc));
  } else if (type == "NFKD") {
    steps->push_back(MakeNormalForm(NormalForm::kNfkd));
  } else if (type == "Lowercase") {
    steps->push_back(std::make_unique<MapChars>(Lowercase));
  } else if (type == "StripAccents") {
    steps->push_back(std::make_unique<MapChars>(StripAccents));
  } else if (type == "Nmt") {
    steps->push_back(std::make_unique<MapChars>(Nmt));
  } else if (type == "ByteLevel") {
    steps->push_back(std::make_unique<ByteLevelNormalizer>());
  } else if (type == "Precompiled") {
    EW_ASSIGN(const std::string_view base64, json.String("precompiled_charsmap"));
    EW_ASSIGN(std::string charsmap, DecodeBase64(base64, json.where + ".precompiled_charsmap"));
    EW_ASSIGN(std::unique_ptr<const Normalizer> step,
              MakePrecompiled(std::move(charsmap)).WithContext(json.where));
    steps->push_back(std::move(step));
  } else {
    return Unsupported(
        fmt::format("{}: normalizer of type '{}' is not known here", json.where, type));
  }
  return Status::Ok();
}

}  // namespace

void PrependTo(std::string_view prefix, AlignedText* text) {
  const std::string& s = text->text();
  if (s.empty()) return;
  AlignedText out;
  out.Reserve(prefix.size() + s.size());
  out.Append(prefix, text->Source({0, static_cast<uint32_t>(Utf8Length(s[0]))}));
  out.AppendFrom(*text, {0, static_cast<uint32_t>(s.size())});
  *text = std::move(out);
}

void AppendByteChars(const AlignedText& from, Range range, AlignedText* out) {
  for (uint32_t i = range.begin; i < range.end; ++i) {
    out->Append(ByteToChar(static_cast<unsigned char>(from.text()[i])), from.Source({i, i + 1}));
  }
}

std::unique_ptr<const Normalizer> MakePrepend(std::string prefix) {
  return std::make_unique<Prepend>(std::move(prefix));
}

std::unique_ptr<const Normalizer> MakeReplace(std::string from, std::string to) {
  return std::make_unique<Replace>(Pattern::Literal(std::move(from)), std::move(to));
}

Status ParseNormalizer(const JsonObject& json, NormalizerSteps* steps) {
  return Parse(json, 0, steps);
}

}  // namespace edgewise::text
