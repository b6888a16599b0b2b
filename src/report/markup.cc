#include "report/markup.h"

#include <cstdint>

namespace edgewise::report {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool Continues(std::string_view text, size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

// Length of the well-formed character at `at`, and its code point; 0 when it is not well-formed.
size_t Decode(std::string_view text, size_t at, uint32_t* code) {
  const auto first = static_cast<unsigned char>(text[at]);
  size_t length = 0;
  if (first < 0x80) {
    *code = first;
    return 1;
  }
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
    *code = first & 0x1Fu;
  } else if ((first & 0xF0) == 0xE0) {
    length = 3;
    *code = first & 0x0Fu;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    *code = first & 0x07u;
  } else {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if (!Continues(text, at + i)) return 0;
    *code = (*code << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3Fu);
  }
  const bool overlong = (length == 3 && *code < 0x800) || (length == 4 && *code < 0x10000);
  const bool surrogate = *code >= 0xD800 && *code <= 0xDFFF;
  return overlong || surrogate || *code > 0x10FFFF ? 0 : length;
}

// Allowed in XML 1.0, and not one of the characters that change how their neighbours are shown.
bool Harmless(uint32_t c) {
  if (c == '\t' || c == '\n') return true;
  if (c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xFFFE || c == 0xFFFF) return false;
  return !((c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069));
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (size_t at = 0; at < text.size();) {
    uint32_t code = 0;
    const size_t length = Decode(text, at, &code);
    if (length == 0 || !Harmless(code)) {
      out += kReplacement;
    } else if (code == '&') {
      out += "&amp;";
    } else if (code == '<') {
      out += "&lt;";
    } else if (code == '>') {
      out += "&gt;";
    } else if (code == '"') {
      out += "&quot;";
    } else if (code == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(at, length);
    }
    at += length == 0 ? 1 : length;
  }
  return out;
}

std::string Shorten(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  size_t end = max_bytes;
  while (end > 0 && Continues(text, end)) --end;
  return std::string(text.substr(0, end)) + " ...";
}

std::string Element(std::string_view tag, std::string_view text, std::string_view attributes) {
  std::string out = "<";
  out += tag;
  out += attributes;
  out += ">";
  out += EscapeHtml(text);
  out += "</";
  out += tag;
  out += ">";
  return out;
}

}  // namespace edgewise::report
