#include "text/jinja/marked_text.h"

namespace edgewise::text::jinja {

void MarkedTextBuilder::Append(std::string_view bytes, uint8_t marks) {
  if (bytes.empty() || overflow_) return;
  if (bytes.size() > max_bytes_ - text_.bytes.size()) {
    overflow_ = true;
    return;
  }
  const auto begin = static_cast<uint32_t>(text_.bytes.size());
  text_.bytes.append(bytes);
  const auto end = static_cast<uint32_t>(text_.bytes.size());
  marks |= extra_marks_;
  if (marks == 0) return;
  if (!text_.runs.empty() && text_.runs.back().end == begin && text_.runs.back().marks == marks) {
    text_.runs.back().end = end;
  } else {
    text_.runs.push_back({begin, end, marks});
  }
}

void MarkedTextBuilder::Append(const MarkedText& text, size_t begin, size_t end) {
  ForEachRun(text, begin, end, [&](size_t from, size_t to, uint8_t marks) {
    Append(std::string_view(text.bytes).substr(from, to - from), marks);
  });
}

}  // namespace edgewise::text::jinja
