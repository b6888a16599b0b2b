// Filters whose result is text.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/runtime.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

Result<Value> String(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("string", args, {}).status());
  return rt.ToText(in);
}

Result<Value> Safe(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("safe", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  MarkedTextBuilder out = rt.Builder();
  out.Append(text.text());
  return rt.NewText(std::move(out), /*safe=*/true);
}

template <bool kForce>
Result<Value> Escape(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("escape", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  return text.safe() && !kForce ? text : EscapeHtml(rt, text);
}

template <auto kChange>
Result<Value> Change(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this filter", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  return kChange(rt, text);
}

// The filter starts a word behind white space and -([{<, unlike str.title.
Result<Value> Title(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("title", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  const std::string_view s = text.str();
  bool inside = false;
  MarkedTextBuilder out = rt.Builder();
  ForEachRun(text.text(), 0, s.size(), [&](size_t begin, size_t end, uint8_t marks) {
    std::string piece;
    for (size_t at = begin; at < end;) {
      const CodePoint p = DecodeAt(s, at);
      if (inside) {
        AppendLower(p.value, &piece);
      } else {
        AppendUpper(p.value, &piece);
      }
      inside = !(IsSpace(p.value) || p.value == '-' || p.value == '(' || p.value == '{' ||
                 p.value == '[' || p.value == '<');
      at += p.length;
    }
    out.Append(piece, marks);
  });
  return rt.NewText(std::move(out));
}

Result<Value> Trim(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("trim", args, {"chars"}));
  EW_ASSIGN(const Value text, rt.ToText(in));
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.str().size())));
  ByteRange range;
  if (a[0] && !a[0]->is_none()) {
    EW_ASSIGN(const Value chars, rt.TextArg(a[0], "the characters to trim"));
    if (chars.str().size() > 256) return rt.Error(ErrorKind::kLimit, "too many characters to trim");
    const std::string_view set = chars.str();
    range = StripRange(text.str(), true, true, &set);
  } else {
    range = StripRange(text.str(), true, true);
  }
  return rt.Slice(text, range.begin, range.end);
}

Result<Value> Replace(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("replace", args, {"old", "new", "count"}));
  if (!a[0] || !a[1]) return rt.ValueError("replace needs an old and a new text");
  EW_ASSIGN(const Value text, rt.ToText(in));
  EW_ASSIGN(const Value from, rt.ToText(*a[0]));
  EW_ASSIGN(const Value to, rt.ToText(*a[1]));
  int64_t count = -1;
  if (a[2] && !a[2]->is_none()) {
    EW_ASSIGN(count, rt.IntArg(a[2], -1, "count"));
  }
  return ReplaceText(rt, text, from.str(), to, count);
}

Result<Value> Format(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(const Value text, rt.ToText(in));
  if (!args.named.empty()) {
    if (!args.positional.empty()) {
      return rt.ValueError("format takes positional or keyword arguments, not both");
    }
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [name, value] : args.named) {
      EW_ASSIGN(Value key, rt.NewString(name));
      entries.emplace_back(std::move(key), value);
    }
    EW_ASSIGN(const Value values, rt.NewDict(std::move(entries)));
    return PercentFormat(rt, text, values);
  }
  EW_ASSIGN(const Value values, rt.NewTuple(args.positional));
  return PercentFormat(rt, text, values);
}

Result<Value> Indent(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("indent", args, {"width", "first", "blank"}));
  EW_ASSIGN(const Value text, rt.ToText(in));
  Value indent;
  if (a[0] && a[0]->is_string()) {
    indent = *a[0];
  } else {
    EW_ASSIGN(const int64_t width, rt.IntArg(a[0], 4, "width"));
    if (width > 10'000) return rt.Error(ErrorKind::kLimit, "an indentation of over 10,000");
    EW_ASSIGN(indent,
              rt.NewString(std::string(static_cast<size_t>(std::max<int64_t>(0, width)), ' ')));
  }
  const bool first = a[1] && Truthy(*a[1]);
  const bool blank = a[2] && Truthy(*a[2]);
  // Jinja adds a newline first, so that a last line that is empty counts.
  MarkedTextBuilder with_newline = rt.Builder();
  with_newline.Append(text.text());
  with_newline.Append("\n");
  EW_ASSIGN(const Value lines_text, rt.NewText(std::move(with_newline)));
  MarkedTextBuilder out = rt.Builder();
  if (first) out.Append(indent.text());
  EW_ASSIGN(const std::vector<Value> lines, SplitLines(rt, lines_text, /*keep_ends=*/false));
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out.Append("\n");
      if (blank || !lines[i].str().empty()) out.Append(indent.text());
    }
    out.Append(lines[i].text());
  }
  return rt.NewText(std::move(out));
}

Result<Value> Center(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("center", args, {"width"}));
  EW_ASSIGN(const int64_t width, rt.IntArg(a[0], 80, "width"));
  EW_ASSIGN(const Value text, rt.ToText(in));
  return PadText(rt, text, width, '^', " ");
}

Result<Value> Truncate(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("truncate", args, {"length", "killwords", "end", "leeway"}));
  EW_ASSIGN(const Value text, rt.ToText(in));
  EW_ASSIGN(const int64_t length, rt.IntArg(a[0], 255, "length"));
  EW_ASSIGN(const int64_t leeway, rt.IntArg(a[3], 5, "leeway"));
  Value end = Value::String("...");
  if (a[2]) {
    EW_ASSIGN(end, rt.TextArg(a[2], "end"));
  }
  const auto size = static_cast<int64_t>(CodePointCount(text.str()));
  const auto end_size = static_cast<int64_t>(CodePointCount(end.str()));
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.str().size())));
  if (length < end_size || leeway < 0) return rt.ValueError("bad arguments of truncate");
  if (size - leeway <= length) return text;
  size_t keep = OffsetOfCodePoint(text.str(), static_cast<size_t>(length - end_size));
  if (!(a[1] && Truthy(*a[1]))) {
    const size_t space = text.str().substr(0, keep).rfind(' ');
    if (space != std::string_view::npos) keep = space;
  }
  MarkedTextBuilder out = rt.Builder();
  out.Append(text.text(), 0, keep);
  out.Append(end.text());
  return rt.NewText(std::move(out));
}

Result<Value> StripTags(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("striptags", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  MarkedTextBuilder out = rt.Builder();
  const std::string_view s = text.str();
  size_t at = 0;
  while (at < s.size()) {
    const size_t open = std::min(s.find('<', at), s.size());
    out.Append(text.text(), at, open);
    const bool comment = s.substr(open).starts_with("<!--");
    const size_t close = s.find(comment ? "-->" : ">", open);
    if (open == s.size()) break;
    if (close == std::string_view::npos) {
      out.Append(text.text(), open, s.size());
      break;
    }
    at = close + (comment ? 3 : 1);
  }
  EW_ASSIGN(const Value stripped, rt.NewText(std::move(out)));
  EW_ASSIGN(const Value words, SplitSpace(rt, stripped, -1));
  MarkedTextBuilder joined = rt.Builder();
  for (size_t i = 0; i < words.items().size(); ++i) {
    if (i > 0) joined.Append(" ");
    joined.Append(words.items()[i].text());
  }
  return rt.NewText(std::move(joined));
}

Result<Value> UrlEncode(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("urlencode", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  MarkedTextBuilder out = rt.Builder();
  ForEachRun(text.text(), 0, text.str().size(), [&](size_t begin, size_t end, uint8_t marks) {
    std::string piece;
    for (size_t i = begin; i < end; ++i) {
      const auto c = static_cast<unsigned char>(text.str()[i]);
      const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                         (c >= 'a' && c <= 'z') || c == '_' || c == '.' || c == '-' || c == '~' ||
                         c == '/';
      if (plain) {
        piece += static_cast<char>(c);
      } else {
        piece += fmt::format("%{:02X}", c);
      }
    }
    out.Append(piece, marks);
  });
  return rt.NewText(std::move(out));
}

Result<Value> ToJson(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a,
            rt.Bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = a[0] && Truthy(*a[0]);
  if (a[1] && !a[1]->is_none()) {
    if (a[1]->is_string()) return rt.ValueError("indent must be an integer");
    EW_ASSIGN(style.indent, rt.IntArg(a[1], -1, "indent"));
    if (style.indent > 64) return rt.Error(ErrorKind::kLimit, "an indentation of over 64");
    style.indent = std::max<int64_t>(0, style.indent);
    style.item_separator.assign(1, ',');
  }
  if (a[2] && !a[2]->is_none()) {
    if (!a[2]->is_sequence() || a[2]->items().size() != 2 || !a[2]->items()[0].is_string() ||
        !a[2]->items()[1].is_string()) {
      return rt.ValueError("separators must be a pair of strings");
    }
    style.item_separator = std::string(a[2]->items()[0].str());
    style.key_separator = std::string(a[2]->items()[1].str());
  }
  style.sort_keys = a[3] && Truthy(*a[3]);
  MarkedTextBuilder out = rt.Builder();
  EW_RETURN_IF_ERROR(AppendJson(rt, in, style, &out));
  return rt.NewText(std::move(out));
}

Result<Value> Join(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("join", args, {"d", "attribute"}));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  Value separator = Value::String("");
  if (a[0]) {
    EW_ASSIGN(separator, rt.ToText(*a[0]));
  }
  MarkedTextBuilder out = rt.Builder();
  for (size_t i = 0; i < items.size(); ++i) {
    EW_RETURN_IF_ERROR(rt.Step());
    Value item = items[i];
    if (a[1] && !a[1]->is_none()) {
      EW_ASSIGN(const Value path, rt.ToText(*a[1]));
      EW_ASSIGN(item, rt.GetPath(item, path.str(), std::nullopt));
    }
    if (i > 0) out.Append(separator.text());
    EW_RETURN_IF_ERROR(rt.AppendText(item, &out));
  }
  return rt.NewText(std::move(out));
}

struct Entry {
  std::string_view name;
  FilterFunction filter;
};
constexpr Entry kFilters[] = {
    {"string", String},
    {"safe", Safe},
    {"e", Escape<false>},
    {"escape", Escape<false>},
    {"forceescape", Escape<true>},
    {"upper", Change<UpperText>},
    {"lower", Change<LowerText>},
    {"capitalize", Change<CapitalizeText>},
    {"title", Title},
    {"trim", Trim},
    {"replace", Replace},
    {"format", Format},
    {"indent", Indent},
    {"center", Center},
    {"truncate", Truncate},
    {"striptags", StripTags},
    {"urlencode", UrlEncode},
    {"tojson", ToJson},
    {"join", Join},
};

}  // namespace

FilterFunction FindTextFilter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace edgewise::text::jinja
