#include "text/regex_syntax.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <utility>

#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr int kMaxClassDepth = 16;

// Contents of character classes.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF})"
    R"(\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{D7FF})"
    R"(\x{E000}-\x{10FFFF})";
constexpr std::string_view kHex = "0-9A-Fa-f";
constexpr std::string_view kNotHex =
    R"(\x{0}-\x{2F}\x{3A}-\x{40}\x{47}-\x{60}\x{67}-\x{D7FF}\x{E000}-\x{10FFFF})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of classes \w also takes the superscripts and fractions of Latin-1.
constexpr std::string_view kLoneWord =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";

constexpr std::array<std::pair<std::string_view, std::string_view>, 13> kLongNames = {{
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"Punctuation", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
    {"Other", "C"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kPosixClasses = {{
    {"alpha", R"(\p{Alphabetic})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"upper", R"(\p{Uppercase})"},
    {"lower", R"(\p{Lowercase})"},
    {"digit", R"(\p{Nd})"},
    {"xdigit", kHex},
    {"space", kSpace},
    {"word", kWord},
    {"punct", R"(\p{P}\p{S})"},
}};

class Translator {
 public:
  Translator(std::string_view in, const std::function<bool(std::string_view)>& is_script)
      : in_(in), is_script_(is_script) {}

  Result<std::string> Run() {
    while (pos_ < in_.size()) {
      const char c = in_[pos_];
      if (c == '\\') {
        EW_RETURN_IF_ERROR(Escape(/*in_class=*/false));
      } else if (c == '[') {
        EW_RETURN_IF_ERROR(Class());
      } else if (c == '(' && in_.substr(pos_, 2) == "(?") {
        Group();
      } else {
        out_.push_back(c);
        ++pos_;
      }
    }
    return std::move(out_);
  }

 private:
  Status Missing(std::string_view what) const {
    return Unsupported(
        fmt::format("regular expression: {} at byte {} is not supported", what, pos_));
  }

  void Set(bool in_class, std::string_view contents, bool negate = false) {
    if (!in_class) out_ += negate ? "[^" : "[";
    out_ += contents;
    if (!in_class) out_ += ']';
  }

  // in_[pos_] is a backslash.
  Status Escape(bool in_class) {
    if (pos_ + 1 >= in_.size()) {
      return BadInput("regular expression: ends in a backslash");
    }
    const char c = in_[pos_ + 1];
    if (c == 'p' || c == 'P') return Property();
    if (c == 'u') return CodePoint();
    if (in_class && c == 'W') return Missing("\\W in a character class");
    if (c == 'Q' || c == 'E' || c == 'C') return Missing("\\Q, \\E or \\C");
    pos_ += 2;
    switch (c) {
      case 's':
        Set(in_class, kSpace);
        break;
      case 'S':
        Set(in_class, in_class ? kNotSpace : kSpace, /*negate=*/true);
        break;
      case 'h':
        Set(in_class, kHex);
        break;
      case 'H':
        Set(in_class, in_class ? kNotHex : kHex, /*negate=*/true);
        break;
      case 'w':
        Set(in_class, in_class ? kWord : kLoneWord);
        break;
      case 'W':
        Set(in_class, kLoneWord, /*negate=*/true);
        break;
      case 'v':
        out_ += R"(\x{B})";
        break;
      case 'd':
        out_ += R"(\p{Nd})";
        break;
      case 'D':
        out_ += R"(\P{Nd})";
        break;
      default:
        out_.push_back('\\');
        out_.push_back(c);
    }
    return Status::Ok();
  }

  // \p{Name}, \p{^Name}, \P{Name}
  Status Property() {
    const size_t open = pos_ + 2;
    const size_t close = open < in_.size() && in_[open] == '{' ? in_.find('}', open) : open;
    if (close == std::string_view::npos || close == open) {
      return BadInput(fmt::format("regular expression: \\p at byte {} needs {{name}}", pos_));
    }
    std::string_view name = in_.substr(open + 1, close - open - 1);
    bool negate = in_[pos_ + 1] == 'P';
    if (!name.empty() && name[0] == '^') {
      negate = !negate;
      name.remove_prefix(1);
    }
    for (const auto& [long_name, short_name] : kLongNames) {
      if (name == long_name) name = short_name;
    }
    const bool script = name.size() > 2 && is_script_(name);
    out_ += fmt::format("\\{}{{{}{}}}", negate ? 'P' : 'p', script ? "sc:" : "", name);
    pos_ = close + 1;
    return Status::Ok();
  }

  // \uHHHH
  Status CodePoint() {
    const std::string_view digits = in_.substr(pos_ + 2, 4);
    for (char c : digits) {
      if (!std::isxdigit(static_cast<unsigned char>(c))) return Missing("\\u without 4 digits");
    }
    if (digits.size() != 4) return Missing("\\u without 4 digits");
    out_ += fmt::format("\\x{{{}}}", digits);
    pos_ += 6;
    return Status::Ok();
  }

  // The members of [:name:].
  Status PosixClass(std::string_view name) {
    if (name.substr(0, 1) == "^") return Missing("a negated [:^class:]");
    for (const auto& [posix, members] : kPosixClasses) {
      if (name == posix) {
        out_ += members;
        return Status::Ok();
      }
    }
    return Missing(fmt::format("the class [:{}:]", name));
  }

  // in_[pos_] is the opening bracket. A class within the class adds its members to the outer one.
  Status Class() {
    const size_t start = pos_;
    int depth = 0;
    bool first = false;  // at the first member, where ']' stands for itself
    while (pos_ < in_.size()) {
      const char c = in_[pos_];
      if (c == '[') {
        if (in_.substr(pos_, 2) == "[:" && depth > 0) {
          const size_t close = in_.find(":]", pos_);
          if (close == std::string_view::npos) return Missing("an open [: in a class");
          EW_RETURN_IF_ERROR(PosixClass(in_.substr(pos_ + 2, close - pos_ - 2)));
          pos_ = close + 2;
          first = false;
          continue;
        }
        if (++depth > kMaxClassDepth) return Missing("a class nested so deeply");
        ++pos_;
        const bool negated = pos_ < in_.size() && in_[pos_] == '^';
        if (negated) ++pos_;
        if (depth == 1) {
          out_ += negated ? "[^" : "[";
        } else if (negated) {
          return Missing("a negated class within a class");
        }
        first = true;
        continue;
      }
      if (c == ']' && !first) {
        ++pos_;
        if (--depth == 0) {
          out_.push_back(']');
          return Status::Ok();
        }
        continue;
      }
      if (c == '\\') {
        EW_RETURN_IF_ERROR(Escape(/*in_class=*/true));
      } else if (in_.substr(pos_, 2) == "&&") {
        return Missing("an intersection of classes (&&)");
      } else {
        // A bracket that is a member must not start or end anything in the flattened class.
        if (c == ']') out_.push_back('\\');
        out_.push_back(c);
        ++pos_;
      }
      first = false;
    }
    return BadInput(fmt::format("regular expression: the class at byte {} has no end", start));
  }

  // "(?": the option m of Oniguruma lets the dot match line ends; Perl calls that s.
  void Group() {
    out_ += "(?";
    pos_ += 2;
    size_t end = pos_;
    while (end < in_.size() &&
           (std::isalpha(static_cast<unsigned char>(in_[end])) || in_[end] == '-')) {
      ++end;
    }
    if (end >= in_.size() || (in_[end] != ':' && in_[end] != ')')) return;
    for (; pos_ < end; ++pos_) out_.push_back(in_[pos_] == 'm' ? 's' : in_[pos_]);
  }

  std::string_view in_;
  const std::function<bool(std::string_view)>& is_script_;
  std::string out_;
  size_t pos_ = 0;
};

}  // namespace

Result<std::string> TranslateRegex(std::string_view pattern,
                                   const std::function<bool(std::string_view)>& is_script) {
  return Translator(pattern, is_script).Run();
}

}  // namespace edgewise::text
