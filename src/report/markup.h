// Text on its way into HTML and SVG. Everything that comes from a file or a model goes through
// EscapeHtml: samples, names and paths are not trusted.
#pragma once

#include <string>
#include <string_view>

namespace edgewise::report {

// Safe between tags and inside quoted attributes. Markup characters become entities, invalid UTF-8
// becomes U+FFFD, control characters other than line feed and tab become U+FFFD too (they are not
// allowed in XML), and so do the characters that turn the direction of writing.
std::string EscapeHtml(std::string_view text);

// At most `max_bytes` bytes of whole UTF-8 characters, " ..." behind them when something was cut.
std::string Shorten(std::string_view text, size_t max_bytes);

// "<tag>escaped text</tag>"; `attributes` are trusted and begin with a space, or are empty.
std::string Element(std::string_view tag, std::string_view text, std::string_view attributes = {});

}  // namespace edgewise::report
