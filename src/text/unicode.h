// UTF-8 and the few character classes that tokenizers need, by Unicode's tables (utf8proc).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace edgewise::text {

inline constexpr char32_t kReplacementChar = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// Length in bytes of the character that starts with `lead` in valid UTF-8.
constexpr size_t Utf8Length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
constexpr bool IsContinuationByte(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// The character at `text[*pos]`; moves `*pos` behind it. `text` must be valid UTF-8, *pos at a
// character.
char32_t NextChar(std::string_view text, size_t* pos);
// The character that ends before `pos` (> 0) and its start.
char32_t CharBefore(std::string_view text, size_t pos, size_t* start);
void AppendUtf8(char32_t c, std::string* out);
// The only character of `text`; nothing when there are none or several.
std::optional<char32_t> SingleChar(std::string_view text);

bool IsValidUtf8(std::string_view text);

// Length of the longest prefix of text[pos..] that is one valid character, or, negated, of the
// maximal part of a broken one (at least 1), as Unicode 15, section 3.9 "best practice" cuts it.
int ScanChar(std::string_view text, size_t pos);

// Every maximal broken part becomes U+FFFD (Rust's String::from_utf8_lossy).
std::string LossyUtf8(std::string_view bytes);

bool IsWhitespace(char32_t c);   // property White_Space
bool IsNumeric(char32_t c);      // general categories Nd, Nl, No
bool IsPunctuation(char32_t c);  // general categories P*, and every ASCII symbol
bool IsMark(char32_t c);         // general categories Mn, Mc, Me
bool IsWordChar(char32_t c);     // Alphabetic (by L, Nl and marks), Nd, Pc, joiners

// GPT-2's printable stand-ins: every byte has one character; the others have none.
std::string_view ByteToChar(unsigned char byte);
std::optional<unsigned char> CharToByte(char32_t c);

}  // namespace edgewise::text
