#include "text/jinja/string_ops.h"

#include <fmt/format.h>

#include <algorithm>

namespace edgewise::text::jinja {

size_t RFindBytes(std::string_view haystack, std::string_view needle) {
  if (needle.size() <= 64) return haystack.rfind(needle);
  // rfind is quadratic on repetitive text; searching backwards in linear time is searching the
  // reversed text forwards.
  const std::string h(haystack.rbegin(), haystack.rend());
  const std::string n(needle.rbegin(), needle.rend());
  const size_t at = FindBytes(h, n, 0);
  return at == std::string_view::npos ? at : haystack.size() - at - needle.size();
}

Result<ByteRange> CharacterRange(Runtime& rt, const Value& text, const std::optional<Value>& start,
                                 const std::optional<Value>& end) {
  const std::string_view s = text.str();
  if (!start && !end) return ByteRange{0, s.size()};
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(s.size())));
  const auto size = static_cast<int64_t>(CodePointCount(s));
  const auto place = [&](const std::optional<Value>& v, int64_t fallback) -> Result<size_t> {
    if (!v || v->is_none()) return OffsetOfCodePoint(s, static_cast<size_t>(fallback));
    EW_ASSIGN(int64_t i, rt.IntArg(v, fallback, "a bound"));
    if (i < 0) i += size;
    return OffsetOfCodePoint(s, static_cast<size_t>(std::clamp<int64_t>(i, 0, size)));
  };
  EW_ASSIGN(const size_t begin, place(start, 0));
  EW_ASSIGN(const size_t stop, place(end, size));
  return ByteRange{begin, std::max(begin, stop)};
}

Result<Value> SplitAt(Runtime& rt, const Value& text, std::string_view separator, int64_t max) {
  if (separator.empty()) return rt.ValueError("empty separator");
  const std::string_view s = text.str();
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(s.size())));
  std::vector<Value> parts;
  size_t begin = 0;
  while (max < 0 || static_cast<int64_t>(parts.size()) < max) {
    const size_t at = FindBytes(s, separator, begin);
    if (at == std::string_view::npos) break;
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value part, rt.Slice(text, begin, at));
    parts.push_back(std::move(part));
    begin = at + separator.size();
  }
  EW_ASSIGN(Value part, rt.Slice(text, begin, s.size()));
  parts.push_back(std::move(part));
  return rt.NewList(std::move(parts));
}

Result<Value> RSplitAt(Runtime& rt, const Value& text, std::string_view separator, int64_t max) {
  if (separator.empty()) return rt.ValueError("empty separator");
  if (separator.size() > 1024) return rt.Error(ErrorKind::kLimit, "separator too long");
  std::string_view s = text.str();
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(s.size())));
  std::vector<Value> parts;
  while (max < 0 || static_cast<int64_t>(parts.size()) < max) {
    const size_t at = s.rfind(separator);
    if (at == std::string_view::npos) break;
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value part, rt.Slice(text, at + separator.size(), s.size()));
    parts.push_back(std::move(part));
    s = s.substr(0, at);
  }
  EW_ASSIGN(Value part, rt.Slice(text, 0, s.size()));
  parts.push_back(std::move(part));
  std::reverse(parts.begin(), parts.end());
  return rt.NewList(std::move(parts));
}

namespace {

// The words of a text between white space.
std::vector<ByteRange> Words(std::string_view s) {
  std::vector<ByteRange> words;
  size_t begin = std::string_view::npos;
  for (size_t at = 0; at < s.size();) {
    const CodePoint p = DecodeAt(s, at);
    if (IsSpace(p.value)) {
      if (begin != std::string_view::npos) words.push_back({begin, at});
      begin = std::string_view::npos;
    } else if (begin == std::string_view::npos) {
      begin = at;
    }
    at += p.length;
  }
  if (begin != std::string_view::npos) words.push_back({begin, s.size()});
  return words;
}

Result<Value> SliceAll(Runtime& rt, const Value& text, const std::vector<ByteRange>& ranges) {
  std::vector<Value> parts;
  for (const ByteRange& range : ranges) {
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value part, rt.Slice(text, range.begin, range.end));
    parts.push_back(std::move(part));
  }
  return rt.NewList(std::move(parts));
}

}  // namespace

Result<Value> SplitSpace(Runtime& rt, const Value& text, int64_t max) {
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.str().size())));
  std::vector<ByteRange> words = Words(text.str());
  if (max >= 0 && static_cast<int64_t>(words.size()) > max + 1) {
    // The rest stays as it is, white space at its end included.
    words.resize(static_cast<size_t>(max) + 1);
    words.back().end = text.str().size();
  }
  return SliceAll(rt, text, words);
}

Result<Value> RSplitSpace(Runtime& rt, const Value& text, int64_t max) {
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.str().size())));
  std::vector<ByteRange> words = Words(text.str());
  if (max >= 0 && static_cast<int64_t>(words.size()) > max + 1) {
    const size_t merged = words.size() - static_cast<size_t>(max);
    words[merged - 1].begin = 0;
    words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(merged - 1));
  }
  return SliceAll(rt, text, words);
}

Result<std::vector<Value>> SplitLines(Runtime& rt, const Value& text, bool keep_ends) {
  const std::string_view s = text.str();
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(s.size())));
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t at = 0; at < s.size();) {
    const CodePoint p = DecodeAt(s, at);
    const char32_t c = p.value;
    const bool line_end = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                          c == 0x2028 || c == 0x2029;
    if (!line_end) {
      at += p.length;
      continue;
    }
    const size_t stop = at;
    at += c == '\r' && at + 1 < s.size() && s[at + 1] == '\n' ? 2 : p.length;
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value line, rt.Slice(text, begin, keep_ends ? at : stop));
    lines.push_back(std::move(line));
    begin = at;
  }
  if (begin < s.size()) {
    EW_ASSIGN(Value line, rt.Slice(text, begin, s.size()));
    lines.push_back(std::move(line));
  }
  return lines;
}

Result<Value> ReplaceText(Runtime& rt, const Value& text, std::string_view from, const Value& to,
                          int64_t count) {
  const std::string_view s = text.str();
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(s.size())));
  MarkedTextBuilder out = rt.Builder();
  size_t begin = 0;
  if (from.empty()) {  // before every character and at the end
    for (; count != 0 && !out.overflow(); --count) {
      out.Append(to.text());
      if (begin >= s.size()) break;
      const size_t n = DecodeAt(s, begin).length;
      out.Append(text.text(), begin, begin + n);
      begin += n;
    }
  }
  for (; !from.empty() && count != 0 && !out.overflow(); --count) {
    const size_t at = FindBytes(s, from, begin);
    if (at == std::string_view::npos) break;
    out.Append(text.text(), begin, at);
    out.Append(to.text());
    begin = at + from.size();
  }
  out.Append(text.text(), begin, s.size());
  return rt.NewText(std::move(out));
}

namespace {

// Maps characters; `append(c, at, out)` writes the mapping of the character at byte `at`.
template <typename F>
Result<Value> MapCharacters(Runtime& rt, const Value& text, F append) {
  // A character costs several times what a copied byte does.
  EW_RETURN_IF_ERROR(rt.Work(8 * static_cast<int64_t>(text.str().size())));
  MarkedTextBuilder out = rt.Builder();
  const std::string_view s = text.str();
  ForEachRun(text.text(), 0, s.size(), [&](size_t begin, size_t end, uint8_t marks) {
    std::string piece;
    for (size_t at = begin; at < end;) {
      const CodePoint p = DecodeAt(s, at);
      append(p.value, at, &piece);
      at += p.length;
    }
    out.Append(piece, marks);
  });
  return rt.NewText(std::move(out));
}

}  // namespace

Result<Value> UpperText(Runtime& rt, const Value& text) {
  return MapCharacters(rt, text, [](char32_t c, size_t, std::string* o) { AppendUpper(c, o); });
}

Result<Value> LowerText(Runtime& rt, const Value& text) {
  // A sigma at the end of a word has a form of its own.
  const std::string_view s = text.str();
  bool after_letter = false;
  return MapCharacters(rt, text, [&](char32_t c, size_t at, std::string* o) {
    if (c == 0x3A3 && after_letter) {
      const size_t next = at + 2;
      const bool ends = next >= s.size() || !IsAlpha(DecodeAt(s, next).value);
      AppendUtf8(ends ? 0x3C2 : 0x3C3, o);
    } else {
      AppendLower(c, o);
    }
    after_letter = IsAlpha(c);
  });
}

Result<Value> TitleText(Runtime& rt, const Value& text) {
  bool inside = false;
  return MapCharacters(rt, text, [&](char32_t c, size_t, std::string* o) {
    if (inside) {
      AppendLower(c, o);
    } else {
      AppendTitle(c, o);
    }
    inside = IsCased(c);
  });
}

Result<Value> CapitalizeText(Runtime& rt, const Value& text) {
  return MapCharacters(rt, text, [](char32_t c, size_t at, std::string* o) {
    if (at == 0) {
      AppendTitle(c, o);
    } else {
      AppendLower(c, o);
    }
  });
}

Result<Value> FoldText(Runtime& rt, const Value& text) {
  return MapCharacters(rt, text, [](char32_t c, size_t, std::string* o) { AppendFolded(c, o); });
}

Result<Value> SwapCaseText(Runtime& rt, const Value& text) {
  return MapCharacters(rt, text, [](char32_t c, size_t, std::string* o) {
    if (IsUpper(c)) {
      AppendLower(c, o);
    } else {
      AppendUpper(c, o);
    }
  });
}

Result<Value> PadText(Runtime& rt, const Value& text, int64_t width, char align,
                      std::string_view fill) {
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.str().size())));
  const auto size = static_cast<int64_t>(CodePointCount(text.str()));
  if (width <= size) return text;
  if (width > rt.limits().output_bytes) {
    return rt.Error(ErrorKind::kLimit, fmt::format("a width of {}", width));
  }
  const int64_t pad = width - size;
  int64_t left = pad;
  if (align == '<') left = 0;
  if (align == '^') left = pad / 2 + (pad & width & 1);
  MarkedTextBuilder out = rt.Builder();
  const bool sign = align == '0' && (text.str().starts_with('-') || text.str().starts_with('+'));
  if (sign) out.Append(text.text(), 0, 1);
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(text.text(), sign ? 1 : 0, text.str().size());
  for (int64_t i = left; i < pad; ++i) out.Append(fill);
  return rt.NewText(std::move(out));
}

}  // namespace edgewise::text::jinja
