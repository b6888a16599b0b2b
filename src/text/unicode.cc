#include "text/unicode.h"

#include <utf8proc.h>

namespace edgewise::text {
namespace {

// First code point of the 68 stand-ins for bytes that are not printable.
constexpr char32_t kFirstStandIn = 0x100;

constexpr bool StandsForItself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct ByteTables {
  std::array<char[3], 256> utf8{};
  std::array<unsigned char, 256> length{};
  std::array<unsigned char, 68> stand_in{};  // byte of U+0100 + i

  constexpr ByteTables() {
    char32_t next = kFirstStandIn;
    for (unsigned byte = 0; byte < 256; ++byte) {
      char32_t c = byte;
      if (!StandsForItself(byte)) {
        stand_in[next - kFirstStandIn] = static_cast<unsigned char>(byte);
        c = next++;
      }
      if (c < 0x80) {
        utf8[byte][0] = static_cast<char>(c);
        length[byte] = 1;
      } else {
        utf8[byte][0] = static_cast<char>(0xC0 | (c >> 6));
        utf8[byte][1] = static_cast<char>(0x80 | (c & 0x3F));
        length[byte] = 2;
      }
    }
  }
};
constexpr ByteTables kBytes;

}  // namespace

char32_t NextChar(std::string_view text, size_t* pos) {
  auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t i = *pos;
  const size_t length = Utf8Length(at(i));
  *pos = i + length;
  switch (length) {
    case 1:
      return at(i);
    case 2:
      return (at(i) & 0x1Fu) << 6 | (at(i + 1) & 0x3Fu);
    case 3:
      return (at(i) & 0x0Fu) << 12 | (at(i + 1) & 0x3Fu) << 6 | (at(i + 2) & 0x3Fu);
    default:
      return (at(i) & 0x07u) << 18 | (at(i + 1) & 0x3Fu) << 12 | (at(i + 2) & 0x3Fu) << 6 |
             (at(i + 3) & 0x3Fu);
  }
}

char32_t CharBefore(std::string_view text, size_t pos, size_t* start) {
  size_t i = pos - 1;
  while (i > 0 && IsContinuationByte(text[i])) --i;
  *start = i;
  return NextChar(text, &i);
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (c >> 6)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (c >> 12)));
    out->push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | (c >> 18)));
    out->push_back(static_cast<char>(0x80 | ((c >> 12) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

std::optional<char32_t> SingleChar(std::string_view text) {
  if (text.empty() || ScanChar(text, 0) != static_cast<int>(text.size())) return std::nullopt;
  size_t pos = 0;
  return NextChar(text, &pos);
}

int ScanChar(std::string_view text, size_t pos) {
  auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(pos);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  const int length = static_cast<int>(Utf8Length(lead));
  // The second byte has a narrower range after some leads (overlong forms, surrogates, > U+10FFFF).
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (int k = 1; k < length; ++k) {
    if (pos + k >= text.size()) return -k;
    const unsigned char c = at(pos + k);
    if (k == 1 ? (c < low || c > high) : (c & 0xC0) != 0x80) return -k;
  }
  return length;
}

bool IsValidUtf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const int length = ScanChar(text, pos);
    if (length < 0) return false;
    pos += length;
  }
  return true;
}

std::string LossyUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t pos = 0; pos < bytes.size();) {
    const int length = ScanChar(bytes, pos);
    if (length > 0) {
      out.append(bytes.substr(pos, length));
      pos += length;
    } else {
      out.append(kReplacementUtf8);
      pos += -length;
    }
  }
  return out;
}

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return false;
  }
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  }
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsMark(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool IsWordChar(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) return true;
  // Circled and squared letters are Alphabetic though they are symbols.
  return category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D ||
         (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

std::string_view ByteToChar(unsigned char byte) { return {kBytes.utf8[byte], kBytes.length[byte]}; }

std::optional<unsigned char> CharToByte(char32_t c) {
  if (c < 0x100) {
    if (StandsForItself(c)) return static_cast<unsigned char>(c);
    return std::nullopt;
  }
  if (c < kFirstStandIn + kBytes.stand_in.size()) return kBytes.stand_in[c - kFirstStandIn];
  return std::nullopt;
}

}  // namespace edgewise::text
