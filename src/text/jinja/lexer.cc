#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

constexpr std::array<std::string_view, 26> kOperators = {
    // The long ones first: the first that fits is taken.
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<Token>> Run() {
    while (at_ < source_.size()) EW_RETURN_IF_ERROR(LexRoot());
    Push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(at_); }
  bool Looking(std::string_view what) const { return Rest().starts_with(what); }
  Status Fail(std::string_view text) const {
    return TemplateError(ErrorKind::kSyntax, line_, text);
  }
  void Push(TokenKind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
  }
  // Moves on by n bytes and counts the lines.
  void Advance(size_t n) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                    source_.begin() + static_cast<std::ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
    line_starting_ = n > 0 && source_[at_ - 1] == '\n';
  }
  void SkipSpace() {
    const ByteRange stripped = StripRange(Rest(), true, false);
    Advance(stripped.begin);
  }

  // Text up to the next tag, then that tag.
  Status LexRoot() {
    size_t open = at_;
    while (true) {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 >= source_.size()) {
        open = source_.size();
        break;
      }
      const char c = source_[open + 1];
      if (c == '%' || c == '{' || c == '#') break;
      ++open;
    }
    const bool at_line_start = line_starting_;
    const std::string_view data(source_.data() + at_, open - at_);
    if (open == source_.size()) {
      PushData(data);
      Advance(data.size());
      return Status::Ok();
    }
    const char kind = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
    PushData(StripBefore(data, sign, kind != '{', at_line_start));
    Advance(data.size());
    const bool has_sign = sign == '-' || sign == '+';
    if (kind == '#') return LexComment(has_sign);
    if (kind == '{') {
      Push(TokenKind::kVariableBegin, "");
      Advance(has_sign ? 3 : 2);
      return LexInside(/*block=*/false);
    }
    if (LookingAtWord(at_ + (has_sign ? 3 : 2), "raw")) return LexRaw(has_sign);
    Push(TokenKind::kBlockBegin, "");
    Advance(has_sign ? 3 : 2);
    return LexInside(/*block=*/true);
  }

  void PushData(std::string_view data) {
    if (!data.empty()) Push(TokenKind::kData, std::string(data));
  }

  // The text before a tag, less what its "-" or lstrip_blocks takes away.
  static std::string_view StripBefore(std::string_view data, char sign, bool lstrip,
                                      bool at_line_start) {
    if (sign == '-') return data.substr(0, StripRange(data, false, true).end);
    if (sign == '+' || !lstrip) return data;
    const size_t newline = data.rfind('\n');
    const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (begin == 0 && !at_line_start) return data;
    const std::string_view indent = data.substr(begin);
    return StripRange(indent, true, false).begin == indent.size() ? data.substr(0, begin) : data;
  }

  // Whether, after white space, `word` and the end of the tag follow. *length: up to behind it.
  bool LookingAtWord(size_t from, std::string_view word, size_t* length = nullptr) const {
    const std::string_view rest = std::string_view(source_).substr(std::min(from, source_.size()));
    const size_t begin = StripRange(rest, true, false).begin;
    if (!rest.substr(begin).starts_with(word)) return false;
    const std::string_view after = rest.substr(begin + word.size());
    const size_t space = StripRange(after, true, false).begin;
    const std::string_view end = after.substr(space);
    if (length != nullptr) *length = begin + word.size() + space;
    return end.starts_with("%}") || end.starts_with("-%}") || end.starts_with("+%}");
  }

  // The end of a tag at the current place: "%}", "-%}" or "+%}" (likewise "#}"). Takes the white
  // space behind it as its sign says; false when there is no end here.
  bool TakeTagEnd(char c, bool trim_newline) {
    const char plain[] = {c, '}', '\0'};
    if (Looking(std::string("-") + plain)) {
      Advance(3);
      SkipSpaceAfterTag();
      return true;
    }
    if (Looking(std::string("+") + plain)) {
      Advance(3);
      return true;
    }
    if (!Looking(plain)) return false;
    Advance(2);
    if (trim_newline && Looking("\n")) Advance(1);
    return true;
  }
  void SkipSpaceAfterTag() {
    const size_t n = StripRange(Rest(), true, false).begin;
    if (n > 0) Advance(n);
  }

  Status LexComment(bool has_sign) {
    const int begin_line = line_;
    const size_t end = source_.find("#}", at_ + (has_sign ? 3 : 2));
    if (end == std::string::npos) {
      return TemplateError(ErrorKind::kSyntax, begin_line, "a comment {# is never closed");
    }
    const char before = source_[end - 1];
    const bool end_sign = (before == '-' || before == '+') && end - 1 >= at_ + (has_sign ? 3 : 2);
    Advance(end - at_ - (end_sign ? 1 : 0));
    TakeTagEnd('#', true);
    return Status::Ok();
  }

  Status LexRaw(bool has_sign) {
    const int begin_line = line_;
    size_t length = 0;
    const size_t head = has_sign ? 3 : 2;
    LookingAtWord(at_ + head, "raw", &length);
    Advance(head + length);
    TakeTagEnd('%', /*trim_newline=*/false);
    const bool at_line_start = line_starting_;
    for (size_t open = source_.find("{%", at_); open != std::string::npos;
         open = source_.find("{%", open + 2)) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      const size_t skip = sign == '-' || sign == '+' ? 3 : 2;
      if (!LookingAtWord(open + skip, "endraw", &length)) continue;
      const std::string_view data(source_.data() + at_, open - at_);
      PushData(StripBefore(data, sign, /*lstrip=*/true, at_line_start));
      Advance(open - at_ + skip + length);
      TakeTagEnd('%', true);
      return Status::Ok();
    }
    return TemplateError(ErrorKind::kSyntax, begin_line, "{% raw %} is never closed");
  }

  // The tokens inside of a tag, up to and with its end.
  Status LexInside(bool block) {
    const int begin_line = line_;
    std::string open_brackets;
    while (true) {
      SkipSpace();
      if (at_ >= source_.size()) {
        return TemplateError(ErrorKind::kSyntax, begin_line,
                             block ? "a block {% is never closed with %}"
                                   : "an expression {{ is never closed with }}");
      }
      if (open_brackets.empty()) {
        if (block && TakeTagEnd('%', true)) {
          Push(TokenKind::kBlockEnd, "");
          return Status::Ok();
        }
        if (!block && (Looking("}}") || Looking("-}}"))) {
          Push(TokenKind::kVariableEnd, "");
          const bool strip = Looking("-}}");
          Advance(strip ? 3 : 2);
          if (strip) SkipSpaceAfterTag();
          return Status::Ok();
        }
      }
      EW_RETURN_IF_ERROR(LexToken(&open_brackets));
    }
  }

  Status LexToken(std::string* open_brackets) {
    const char c = source_[at_];
    if (c == '"' || c == '\'') return LexString(c);
    if (c >= '0' && c <= '9') return LexNumber();
    if (IsIdentifierStart(DecodeAt(source_, at_).value)) {
      size_t end = at_;
      while (end < source_.size()) {
        const CodePoint p = DecodeAt(source_, end);
        if (!IsIdentifierPart(p.value)) break;
        end += p.length;
      }
      Push(TokenKind::kName, source_.substr(at_, end - at_));
      Advance(end - at_);
      return Status::Ok();
    }
    for (const std::string_view op : kOperators) {
      if (!Looking(op)) continue;
      if (op == "(" || op == "[" || op == "{") {
        *open_brackets += op[0] == '(' ? ')' : op[0] == '[' ? ']' : '}';
      } else if (op == ")" || op == "]" || op == "}") {
        if (open_brackets->empty() || open_brackets->back() != op[0]) {
          return Fail(fmt::format("unexpected '{}'", op));
        }
        open_brackets->pop_back();
      }
      Push(TokenKind::kOperator, std::string(op));
      Advance(op.size());
      return Status::Ok();
    }
    const CodePoint p = DecodeAt(source_, at_);
    return Fail(fmt::format("unexpected character U+{:04X}", static_cast<uint32_t>(p.value)));
  }

  Status LexNumber() {
    std::string digits;  // without underscores
    size_t end = at_;
    const auto take = [&](auto accept) {
      size_t taken = 0;
      while (end < source_.size()) {
        if (accept(source_[end])) {
          digits += source_[end++];
        } else if (source_[end] == '_' && taken > 0 && end + 1 < source_.size() &&
                   accept(source_[end + 1])) {
          ++end;
        } else {
          break;
        }
        ++taken;
      }
    };
    const auto decimal = [](char d) { return d >= '0' && d <= '9'; };
    int base = 10;
    if (source_[at_] == '0' && at_ + 1 < source_.size()) {
      const char mark = static_cast<char>(source_[at_ + 1] | 0x20);
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    }
    bool is_float = false;
    if (base != 10) {
      end += 2;
      take([&](char d) {
        return base == 16
                   ? std::string_view("0123456789abcdefABCDEF").find(d) != std::string_view::npos
                   : d >= '0' && d < '0' + base;
      });
    } else {
      take(decimal);
      const auto digit_at = [&](size_t i) { return i < source_.size() && decimal(source_[i]); };
      if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
        is_float = true;
        digits += source_[end++];
        take(decimal);
      }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        const size_t sign =
            end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
        if (digit_at(end + 1 + sign)) {
          is_float = true;
          digits += 'e';
          if (sign != 0) digits += source_[end + 1];
          end += 1 + sign;
          take(decimal);
        }
      }
    }
    Token token;
    token.line = line_;
    token.kind = is_float ? TokenKind::kFloat : TokenKind::kInteger;
    const char* first = digits.data();
    const char* last = first + digits.size();
    const auto parsed = is_float ? std::from_chars(first, last, token.number)
                                 : std::from_chars(first, last, token.integer, base);
    if (parsed.ec != std::errc() || parsed.ptr != last) {
      return Fail(fmt::format("'{}' is not a number that fits 64 bits",
                              source_.substr(at_, std::min<size_t>(end - at_, 40))));
    }
    tokens_.push_back(std::move(token));
    Advance(end - at_);
    return Status::Ok();
  }

  Status LexString(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Fail("a string is never closed");
    EW_ASSIGN(std::string text, Unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    Push(TokenKind::kString, std::move(text));
    Advance(end + 1 - at_);
    return Status::Ok();
  }

  // Python's escapes in string literals; unknown ones stay as they are.
  Result<std::string> Unescape(std::string_view s) const {
    std::string out;
    for (size_t i = 0; i < s.size(); ++i) {
      if (s[i] != '\\' || i + 1 >= s.size()) {
        out += s[i];
        continue;
      }
      const char c = s[++i];
      static constexpr std::string_view kFrom = "ntrabfv\\'\"";
      static constexpr std::string_view kTo = "\n\t\r\a\b\f\v\\'\"";
      if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
        out += kTo[k];
      } else if (c == '\n') {
        continue;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        uint32_t value = 0;
        const std::string_view hex = s.substr(i + 1, width);
        const auto parsed = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
        if (hex.size() != width || parsed.ptr != hex.data() + width || value > 0x10FFFF) {
          return Fail(fmt::format("bad escape \\{}", c));
        }
        AppendUtf8(value, &out);
        i += width;
      } else if (c >= '0' && c <= '7') {
        uint32_t value = 0;
        size_t n = 0;
        while (n < 3 && i + n < s.size() && s[i + n] >= '0' && s[i + n] <= '7') {
          value = value * 8 + static_cast<uint32_t>(s[i + n] - '0');
          ++n;
        }
        AppendUtf8(value, &out);
        i += n - 1;
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> Tokenize(std::string_view source, const JinjaLimits& limits) {
  if (static_cast<int64_t>(source.size()) > limits.template_bytes) {
    return TemplateError(
        ErrorKind::kLimit, 0,
        fmt::format("{} bytes long, allowed are {}", source.size(), limits.template_bytes));
  }
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace edgewise::text::jinja
