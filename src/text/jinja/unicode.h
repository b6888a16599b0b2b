// Code points, classes and case mappings as Python's str has them, on UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace edgewise::text::jinja {

// The code point that starts at bytes[at] and its length in bytes (at least 1). A byte that starts
// no well-formed sequence counts as one code point U+FFFD of length 1. at < bytes.size().
struct CodePoint {
  char32_t value = 0;
  size_t length = 1;
};
CodePoint DecodeAt(std::string_view bytes, size_t at);
void AppendUtf8(char32_t c, std::string* out);

size_t CodePointCount(std::string_view bytes);
// Byte offset of the n-th code point; bytes.size() when there are not so many.
size_t OffsetOfCodePoint(std::string_view bytes, size_t n);

bool IsSpace(char32_t c);    // str.isspace
bool IsAlpha(char32_t c);    // str.isalpha
bool IsDecimal(char32_t c);  // str.isdecimal
bool IsDigit(char32_t c);    // str.isdigit
bool IsNumeric(char32_t c);  // str.isnumeric, by general category
bool IsUpper(char32_t c);    // general category Lu
bool IsLower(char32_t c);    // general category Ll
bool IsTitle(char32_t c);    // general category Lt
bool IsCased(char32_t c);
bool IsPrintable(char32_t c);  // what repr() does not escape
bool IsIdentifierStart(char32_t c);
bool IsIdentifierPart(char32_t c);

void AppendUpper(char32_t c, std::string* out);
void AppendLower(char32_t c, std::string* out);
void AppendTitle(char32_t c, std::string* out);
void AppendFolded(char32_t c, std::string* out);

// Byte range of `bytes` without white space at the chosen ends. `chars`: the set to strip instead
// of white space, or null.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};
ByteRange StripRange(std::string_view bytes, bool left, bool right,
                     const std::string_view* chars = nullptr);

// First occurrence of `needle` at or after `from`, or npos; linear time in the worst case.
size_t FindBytes(std::string_view haystack, std::string_view needle, size_t from);

}  // namespace edgewise::text::jinja
