#include "text/aligned_text.h"

#include <algorithm>

#include "text/unicode.h"

namespace edgewise::text {

AlignedText AlignedText::FromBytes(std::string_view bytes) {
  if (IsValidUtf8(bytes)) return AlignedText(bytes, 0);
  AlignedText out;
  out.Reserve(bytes.size());
  for (uint32_t pos = 0; pos < bytes.size();) {
    const int length = ScanChar(bytes, pos);
    const auto end = static_cast<uint32_t>(pos + (length < 0 ? -length : length));
    out.Append(length > 0 ? bytes.substr(pos, length) : kReplacementUtf8, {pos, end});
    pos = end;
  }
  return out;
}

TextSpan AlignedText::Source(Range range) const {
  if (!align_.empty()) {
    return {align_[range.begin].begin, align_[range.end - 1].end};
  }
  while (range.begin > 0 && IsContinuationByte(text_[range.begin])) --range.begin;
  while (range.end < text_.size() && IsContinuationByte(text_[range.end])) ++range.end;
  return {base_ + range.begin, base_ + range.end};
}

void AlignedText::Locate(std::span<const TextSpan> source, std::vector<Range>* out) const {
  out->clear();
  if (source.empty()) return;
  const auto size = static_cast<uint32_t>(text_.size());
  // The first range that ends behind `byte`.
  const auto first_behind = [&](uint32_t byte) {
    return std::partition_point(source.begin(), source.end(),
                                [&](const TextSpan& s) { return s.end <= byte; });
  };
  if (align_.empty()) {
    for (auto it = first_behind(base_); it != source.end() && it->begin < base_ + size; ++it) {
      const uint32_t begin = std::max(it->begin, base_) - base_;
      const uint32_t end = std::min(it->end, base_ + size) - base_;
      if (begin < end) out->push_back({begin, end});
    }
    return;
  }
  bool inside = false;
  for (uint32_t i = 0; i < size; ++i) {
    if (i == 0 || align_[i] != align_[i - 1]) {
      const auto it = first_behind(align_[i].begin);
      inside = it != source.end() && it->begin < align_[i].end;
    }
    if (!inside) continue;
    if (!out->empty() && out->back().end == i) {
      ++out->back().end;
    } else {
      out->push_back({i, i + 1});
    }
  }
}

AlignedText AlignedText::Slice(Range range) const {
  AlignedText out(view(range), base_ + range.begin);
  if (!align_.empty()) {
    out.align_.assign(align_.begin() + range.begin, align_.begin() + range.end);
  }
  return out;
}

void AlignedText::AppendFrom(const AlignedText& from, Range range) {
  text_.append(from.view(range));
  if (!from.align_.empty()) {
    align_.insert(align_.end(), from.align_.begin() + range.begin, from.align_.begin() + range.end);
    return;
  }
  for (uint32_t i = range.begin; i < range.end;) {
    const auto length = static_cast<uint32_t>(Utf8Length(from.text_[i]));
    const TextSpan source{from.base_ + i, from.base_ + i + length};
    align_.insert(align_.end(), length, source);
    i += length;
  }
}

void AlignedText::Append(std::string_view added, TextSpan source) {
  text_.append(added);
  align_.insert(align_.end(), added.size(), source);
}

}  // namespace edgewise::text
