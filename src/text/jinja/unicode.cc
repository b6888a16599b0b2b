#include "text/jinja/unicode.h"

#include <string.h>  // memmem
#include <utf8proc.h>

namespace edgewise::text::jinja {

namespace {

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

CodePoint DecodeAt(std::string_view bytes, size_t at) {
  const auto lead = static_cast<unsigned char>(bytes[at]);
  if (lead < 0x80) return {lead, 1};
  utf8proc_int32_t value = -1;
  const utf8proc_ssize_t n =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(bytes.data()) + at,
                       static_cast<utf8proc_ssize_t>(bytes.size() - at), &value);
  if (n <= 0 || value < 0) return {0xFFFD, 1};
  return {static_cast<char32_t>(value), static_cast<size_t>(n)};
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c);
    return;
  }
  if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) c = 0xFFFD;
  utf8proc_uint8_t buffer[4];
  const utf8proc_ssize_t n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), buffer);
  out->append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(n));
}

size_t CodePointCount(std::string_view bytes) {
  size_t count = 0;
  for (size_t at = 0; at < bytes.size(); at += DecodeAt(bytes, at).length) ++count;
  return count;
}

size_t OffsetOfCodePoint(std::string_view bytes, size_t n) {
  size_t at = 0;
  for (; n > 0 && at < bytes.size(); --n) at += DecodeAt(bytes, at).length;
  return at;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20);
  if (c == 0x85) return true;
  const utf8proc_category_t k = Category(c);
  return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

bool IsAlpha(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return false;
  }
}

bool IsDecimal(char32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : Category(c) == UTF8PROC_CATEGORY_ND;
}

bool IsDigit(char32_t c) {
  if (IsDecimal(c)) return true;
  // Superscripts, subscripts and circled digits: digits without a decimal value.
  return c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) ||
         (c >= 0x2474 && c <= 0x247C) || (c >= 0x2488 && c <= 0x2490);
}

bool IsNumeric(char32_t c) {
  const utf8proc_category_t k = Category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool IsUpper(char32_t c) {
  return c < 0x80 ? c >= 'A' && c <= 'Z' : Category(c) == UTF8PROC_CATEGORY_LU;
}
bool IsLower(char32_t c) {
  return c < 0x80 ? c >= 'a' && c <= 'z' : Category(c) == UTF8PROC_CATEGORY_LL;
}
bool IsTitle(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LT; }
bool IsCased(char32_t c) { return IsUpper(c) || IsLower(c) || IsTitle(c); }

bool IsPrintable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c != 0x7F;
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool IsIdentifierStart(char32_t c) {
  return c == '_' || IsAlpha(c) || Category(c) == UTF8PROC_CATEGORY_NL;
}

bool IsIdentifierPart(char32_t c) {
  if (IsIdentifierStart(c) || IsDecimal(c)) return true;
  const utf8proc_category_t k = Category(c);
  return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_PC;
}

namespace {

// The mappings to more than one character that occur in running text; utf8proc's are one to one.
const char* SpecialUpper(char32_t c, bool title) {
  switch (c) {
    case 0xDF:
      return title ? "Ss" : "SS";
    case 0xFB00:
      return title ? "Ff" : "FF";
    case 0xFB01:
      return title ? "Fi" : "FI";
    case 0xFB02:
      return title ? "Fl" : "FL";
    case 0xFB03:
      return title ? "Ffi" : "FFI";
    case 0xFB04:
      return title ? "Ffl" : "FFL";
    default:
      return nullptr;
  }
}

}  // namespace

void AppendUpper(char32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  } else if (const char* s = SpecialUpper(c, false)) {
    *out += s;
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendTitle(char32_t c, std::string* out) {
  if (c < 0x80) {
    AppendUpper(c, out);
  } else if (const char* s = SpecialUpper(c, true)) {
    *out += s;
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendLower(char32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x130) {
    *out += "i\xCC\x87";
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendFolded(char32_t c, std::string* out) {
  if (c == 0xDF || c == 0x1E9E) {
    *out += "ss";
  } else if (c >= 0xFB00 && c <= 0xFB04) {
    static constexpr const char* kLigatures[] = {"ff", "fi", "fl", "ffi", "ffl"};
    *out += kLigatures[c - 0xFB00];
  } else if (c == 0x3C2) {
    AppendUtf8(0x3C3, out);
  } else {
    AppendLower(c, out);
  }
}

ByteRange StripRange(std::string_view bytes, bool left, bool right, const std::string_view* chars) {
  const auto in_set = [&](char32_t c) {
    if (chars == nullptr) return IsSpace(c);
    for (size_t at = 0; at < chars->size();) {
      const CodePoint p = DecodeAt(*chars, at);
      if (p.value == c) return true;
      at += p.length;
    }
    return false;
  };
  ByteRange range{0, bytes.size()};
  while (left && range.begin < range.end) {
    const CodePoint p = DecodeAt(bytes, range.begin);
    if (!in_set(p.value)) break;
    range.begin += p.length;
  }
  while (right && range.end > range.begin) {
    size_t at = range.end - 1;
    while (at > range.begin && range.end - at < 4 &&
           (static_cast<unsigned char>(bytes[at]) & 0xC0) == 0x80) {
      --at;
    }
    CodePoint p = DecodeAt(bytes, at);
    if (at + p.length != range.end) {  // a stray continuation byte
      at = range.end - 1;
      p = {0xFFFD, 1};
    }
    if (!in_set(p.value)) break;
    range.end = at;
  }
  return range;
}

size_t FindBytes(std::string_view haystack, std::string_view needle, size_t from) {
  if (from > haystack.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // glibc's memmem is the two-way algorithm; std::string_view::find is quadratic on repetitive
  // text.
  const void* hit =
      memmem(haystack.data() + from, haystack.size() - from, needle.data(), needle.size());
  if (hit == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(hit) - haystack.data());
}

}  // namespace edgewise::text::jinja
