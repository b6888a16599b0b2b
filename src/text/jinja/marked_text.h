// Text that remembers where its bytes came from. Every string operation of the template engine
// keeps these marks, so that after rendering it is known which bytes were written by the template
// and which came from a user, however they were trimmed, split or joined on the way.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace edgewise::text::jinja {

// Bits of TextRun::marks.
inline constexpr uint8_t kMarkInput = 1;      // from the messages or tools, not from the template
inline constexpr uint8_t kMarkGenerated = 2;  // inside {% generation %}

// Bytes [begin, end) carry `marks` (never 0). Runs of one text are ascending and disjoint.
struct TextRun {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint8_t marks = 0;
  bool operator==(const TextRun&) const = default;
};

struct MarkedText {
  std::string bytes;  // UTF-8
  std::vector<TextRun> runs;

  MarkedText() = default;
  explicit MarkedText(std::string b) : bytes(std::move(b)) {}
};

// Calls f(begin, end, marks) for consecutive pieces that cover [begin, end) of `text`.
template <typename F>
void ForEachRun(const MarkedText& text, size_t begin, size_t end, F f) {
  size_t at = begin;
  for (const TextRun& run : text.runs) {
    if (run.end <= at) continue;
    if (run.begin >= end) break;
    if (run.begin > at) f(at, size_t{run.begin}, uint8_t{0});
    const size_t from = std::max(at, size_t{run.begin});
    const size_t to = std::min(end, size_t{run.end});
    f(from, to, run.marks);
    at = to;
  }
  if (at < end) f(at, end, uint8_t{0});
}

// Builds a marked text piece by piece. Beyond `max_bytes` nothing more is kept and overflow() says
// so: memory stays bounded whatever is appended.
class MarkedTextBuilder {
 public:
  explicit MarkedTextBuilder(int64_t max_bytes) : max_bytes_(static_cast<size_t>(max_bytes)) {}

  void Append(std::string_view bytes, uint8_t marks = 0);
  void Append(const MarkedText& text) { Append(text, 0, text.bytes.size()); }
  void Append(const MarkedText& text, size_t begin, size_t end);

  // Marks that everything appended from now on also gets (inside {% generation %}).
  void set_extra_marks(uint8_t marks) { extra_marks_ = marks; }
  uint8_t extra_marks() const { return extra_marks_; }

  size_t size() const { return text_.bytes.size(); }
  bool overflow() const { return overflow_; }
  const MarkedText& text() const { return text_; }
  MarkedText Take() { return std::move(text_); }

 private:
  size_t max_bytes_;
  uint8_t extra_marks_ = 0;
  bool overflow_ = false;
  MarkedText text_;
};

}  // namespace edgewise::text::jinja
