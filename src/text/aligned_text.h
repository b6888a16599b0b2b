// Text on its way through normalizers and pre-tokenizers, with the place in the original bytes that
// every byte of it comes from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace edgewise::text {

// Bytes [begin, end) of a text.
struct Range {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
  bool empty() const { return begin == end; }
  bool operator==(const Range&) const = default;
};

// Valid UTF-8. While nothing was changed there is no table: byte i comes from byte base + i.
class AlignedText {
 public:
  AlignedText() = default;
  // An unchanged part of the original that starts at its byte `base`.
  AlignedText(std::string_view text, uint32_t base) : text_(text), base_(base) {}

  // Bytes that need not be UTF-8: every broken part becomes U+FFFD and stands for that part.
  static AlignedText FromBytes(std::string_view bytes);

  const std::string& text() const { return text_; }
  std::string_view view(Range range) const {
    return std::string_view(text_).substr(range.begin, range.size());
  }
  // What the non-empty `range` stands for; whole characters.
  TextSpan Source(Range range) const;

  // The ranges of this text that stand for bytes in `source` (ascending, disjoint).
  void Locate(std::span<const TextSpan> source, std::vector<Range>* out) const;

  AlignedText Slice(Range range) const;

  // Building a changed copy: parts of `from` in order, and replacements for parts of it.
  void AppendFrom(const AlignedText& from, Range range);
  void Append(std::string_view added, TextSpan source);

  void Reserve(size_t bytes) {
    text_.reserve(bytes);
    align_.reserve(bytes);
  }

 private:
  std::string text_;
  uint32_t base_ = 0;
  std::vector<TextSpan> align_;  // one per byte, or empty
};

// A text cut into pieces; the ranges ascend, do not overlap and are not empty.
struct Pieces {
  AlignedText text;
  std::vector<Range> ranges;
};

}  // namespace edgewise::text
