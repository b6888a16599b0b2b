#include "text/decoder.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr int kMaxNesting = 8;
constexpr std::string_view kMarker = "\xE2\x96\x81";

void JoinAll(std::vector<std::string>* tokens) {
  std::string joined;
  for (const std::string& token : *tokens) joined += token;
  tokens->assign(1, std::move(joined));
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t pos = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, pos)) {
    out.append(text.substr(pos, at - pos));
    out.append(to);
    pos = at + from.size();
  }
  out.append(text.substr(pos));
  return out;
}

class ByteLevel final : public DecoderStep {
 public:
  void Apply(std::vector<std::string>* tokens) const override {
    std::string bytes;
    for (const std::string& token : *tokens) {
      const size_t before = bytes.size();
      for (size_t pos = 0; pos < token.size();) {
        const std::optional<unsigned char> byte = CharToByte(NextChar(token, &pos));
        if (!byte) {
          // Not spelt at byte level (an added token): it stands for itself.
          bytes.resize(before);
          bytes += token;
          break;
        }
        bytes.push_back(static_cast<char>(*byte));
      }
    }
    tokens->assign(1, LossyUtf8(bytes));
  }
};

class ByteFallback final : public DecoderStep {
 public:
  void Apply(std::vector<std::string>* tokens) const override {
    std::vector<std::string> out;
    std::string bytes;
    auto flush = [&] {
      if (IsValidUtf8(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), std::string(kReplacementUtf8));
      }
      bytes.clear();
    };
    for (std::string& token : *tokens) {
      if (const std::optional<unsigned char> byte = ByteOf(token)) {
        bytes.push_back(static_cast<char>(*byte));
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    *tokens = std::move(out);
  }

 private:
  static int Digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  }
  static std::optional<unsigned char> ByteOf(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
    // The library's parser of numbers takes a sign.
    const int high = token[3] == '+' ? 0 : Digit(token[3]);
    const int low = Digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<unsigned char>(high * 16 + low);
  }
};

class Fuse final : public DecoderStep {
 public:
  void Apply(std::vector<std::string>* tokens) const override { JoinAll(tokens); }
};

// Up to `start` and `stop` times the character `content` at the two ends of every token.
class Strip final : public DecoderStep {
 public:
  Strip(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void Apply(std::vector<std::string>* tokens) const override {
    for (std::string& token : *tokens) {
      std::string_view left = token;
      for (int64_t i = 0; i < start_ && left.substr(0, content_.size()) == content_; ++i) {
        left.remove_prefix(content_.size());
      }
      for (int64_t i = 0; i < stop_ && left.size() >= content_.size() &&
                          left.substr(left.size() - content_.size()) == content_;
           ++i) {
        left.remove_suffix(content_.size());
      }
      token = std::string(left);
    }
  }

 private:
  std::string content_;
  int64_t start_;
  int64_t stop_;
};

class Replace final : public DecoderStep {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(std::vector<std::string>* tokens) const override {
    RegexScratch scratch;
    std::vector<Range> matches;
    for (std::string& token : *tokens) {
      if (!pattern_.FindAll(token, scratch, &matches).ok() || matches.empty()) continue;
      std::string out;
      uint32_t previous = 0;
      for (const Range& match : matches) {
        out.append(token, previous, match.begin - previous);
        out.append(content_);
        previous = match.end;
      }
      out.append(token, previous);
      token = std::move(out);
    }
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class Metaspace final : public DecoderStep {
 public:
  Metaspace(std::string replacement, bool strip_first)
      : replacement_(std::move(replacement)), strip_first_(strip_first) {}
  void Apply(std::vector<std::string>* tokens) const override {
    for (size_t i = 0; i < tokens->size(); ++i) {
      std::string& token = (*tokens)[i];
      token = ReplaceAll(token, replacement_, i == 0 && strip_first_ ? "" : " ");
    }
  }

 private:
  std::string replacement_;
  bool strip_first_;
};

class WordPiece final : public DecoderStep {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void Apply(std::vector<std::string>* tokens) const override {
    for (size_t i = 0; i < tokens->size(); ++i) {
      std::string& token = (*tokens)[i];
      if (i > 0) {
        if (!prefix_.empty() && token.compare(0, prefix_.size(), prefix_) == 0) {
          token.erase(0, prefix_.size());
        } else {
          token.insert(0, 1, ' ');
        }
      }
      if (!cleanup_) continue;
      static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
          {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
          {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
          {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
      };
      for (const auto& [from, to] : kRules) token = ReplaceAll(token, from, to);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class BpeSuffix final : public DecoderStep {
 public:
  explicit BpeSuffix(std::string suffix) : suffix_(std::move(suffix)) {}
  void Apply(std::vector<std::string>* tokens) const override {
    for (size_t i = 0; i < tokens->size(); ++i) {
      std::string& token = (*tokens)[i];
      token = ReplaceAll(token, suffix_, i + 1 == tokens->size() ? "" : " ");
    }
  }

 private:
  std::string suffix_;
};

Status Parse(const JsonObject& json, int depth, DecoderSteps* steps);

Status ParseSequence(const JsonObject& json, int depth, DecoderSteps* steps) {
  if (depth >= kMaxNesting) return BadInput(fmt::format("{}: nested too deeply", json.where));
  EW_ASSIGN(const dom::array parts, json.Array("decoders"));
  size_t index = 0;
  for (dom::element part : parts) {
    EW_ASSIGN(const JsonObject step,
              JsonObject::From(part, fmt::format("{}.decoders[{}]", json.where, index++)));
    EW_RETURN_IF_ERROR(Parse(step, depth + 1, steps));
  }
  return Status::Ok();
}

Status ParseStrip(const JsonObject& json, DecoderSteps* steps) {
  EW_ASSIGN(const std::string_view content, json.String("content"));
  EW_ASSIGN(const int64_t start, json.Int("start"));
  EW_ASSIGN(const int64_t stop, json.Int("stop"));
  if (!SingleChar(content) || start < 0 || stop < 0) {
    return BadInput(
        fmt::format("{}: content must be one character, start and stop counts", json.where));
  }
  steps->push_back(std::make_unique<Strip>(std::string(content), start, stop));
  return Status::Ok();
}

Status ParseMetaspace(const JsonObject& json, DecoderSteps* steps) {
  EW_ASSIGN(const std::string_view replacement, json.String("replacement"));
  EW_ASSIGN(const std::optional<std::string_view> scheme, json.OptionalString("prepend_scheme"));
  EW_ASSIGN(const bool add_prefix_space, json.BoolOr("add_prefix_space", true));
  if (!SingleChar(replacement)) {
    return BadInput(fmt::format("{} is not one character", json.Path("replacement")));
  }
  const bool strip_first = scheme ? *scheme != "never" : add_prefix_space;
  steps->push_back(std::make_unique<Metaspace>(std::string(replacement), strip_first));
  return Status::Ok();
}

Status Parse(const JsonObject& json, int depth, DecoderSteps* steps) {
  EW_ASSIGN(const std::string_view type, json.String("type"));
  if (type == "Sequence") return ParseSequence(json, depth, steps);
  if (type == "Strip") return ParseStrip(json, steps);
  if (type == "Metaspace") return ParseMetaspace(json, steps);
  if (type == "ByteLevel") {
    steps->push_back(MakeByteLevelDecoder());
  } else if (type == "ByteFallback") {
    steps->push_back(std::make_unique<ByteFallback>());
  } else if (type == "Fuse") {
    steps->push_back(std::make_unique<Fuse>());
  } else if (type == "Replace") {
    EW_ASSIGN(Pattern pattern, Pattern::FromJson(json));
    EW_ASSIGN(const std::string_view content, json.String("content"));
    steps->push_back(std::make_unique<Replace>(std::move(pattern), std::string(content)));
  } else if (type == "WordPiece") {
    EW_ASSIGN(const std::optional<std::string_view> prefix, json.OptionalString("prefix"));
    EW_ASSIGN(const bool cleanup, json.BoolOr("cleanup", true));
    steps->push_back(std::make_unique<WordPiece>(std::string(prefix.value_or("##")), cleanup));
  } else if (type == "BPEDecoder") {
    EW_ASSIGN(const std::string_view suffix, json.String("suffix"));
    if (suffix.empty()) return Unsupported(fmt::format("{}: an empty suffix", json.where));
    steps->push_back(std::make_unique<BpeSuffix>(std::string(suffix)));
  } else {
    return Unsupported(fmt::format("{}: decoder of type '{}' is not known here", json.where, type));
  }
  return Status::Ok();
}

}  // namespace

Status ParseDecoder(const JsonObject& json, DecoderSteps* steps) { return Parse(json, 0, steps); }

std::unique_ptr<const DecoderStep> MakeByteLevelDecoder() { return std::make_unique<ByteLevel>(); }

DecoderSteps MakeSentencePieceDecoder(bool strip_first_space) {
  DecoderSteps steps;
  steps.push_back(std::make_unique<Replace>(Pattern::Literal(std::string(kMarker)), " "));
  steps.push_back(std::make_unique<ByteFallback>());
  steps.push_back(std::make_unique<Fuse>());
  if (strip_first_space) steps.push_back(std::make_unique<Strip>(" ", 1, 0));
  return steps;
}

}  // namespace edgewise::text
