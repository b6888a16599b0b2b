// Methods of strings.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/jinja/runtime.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

using Method = Result<Value> (*)(Runtime& rt, const Value& self, CallArgs& args);

template <bool kLeft, bool kRight>
Result<Value> Strip(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("strip", args, {"chars"}));
  const std::string_view text = self.str();
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.size())));
  ByteRange range;
  if (a[0] && !a[0]->is_none()) {
    EW_ASSIGN(const Value chars, rt.TextArg(a[0], "the characters to strip"));
    if (chars.str().size() > 256)
      return rt.Error(ErrorKind::kLimit, "too many characters to strip");
    const std::string_view set = chars.str();
    range = StripRange(text, kLeft, kRight, &set);
  } else {
    range = StripRange(text, kLeft, kRight);
  }
  return rt.Slice(self, range.begin, range.end);
}

Result<Value> Split(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("split", args, {"sep", "maxsplit"}));
  EW_ASSIGN(const int64_t max, rt.IntArg(a[1], -1, "maxsplit"));
  if (!a[0] || a[0]->is_none()) return SplitSpace(rt, self, max);
  EW_ASSIGN(const Value separator, rt.TextArg(a[0], "the separator"));
  return SplitAt(rt, self, separator.str(), max);
}

Result<Value> RSplit(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("rsplit", args, {"sep", "maxsplit"}));
  EW_ASSIGN(const int64_t max, rt.IntArg(a[1], -1, "maxsplit"));
  if (!a[0] || a[0]->is_none()) return RSplitSpace(rt, self, max);
  EW_ASSIGN(const Value separator, rt.TextArg(a[0], "the separator"));
  return RSplitAt(rt, self, separator.str(), max);
}

template <bool kRight>
Result<Value> Partition(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("partition", args, {"sep"}));
  EW_ASSIGN(const Value separator, rt.TextArg(a[0], "the separator"));
  if (separator.str().empty()) return rt.ValueError("empty separator");
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(self.str().size())));
  const size_t at =
      kRight ? RFindBytes(self.str(), separator.str()) : FindBytes(self.str(), separator.str(), 0);
  const size_t size = self.str().size();
  if (at == std::string_view::npos) {
    EW_ASSIGN(const Value empty, rt.NewString(""));
    return kRight ? rt.NewTuple({empty, empty, self}) : rt.NewTuple({self, empty, empty});
  }
  EW_ASSIGN(const Value head, rt.Slice(self, 0, at));
  EW_ASSIGN(const Value middle, rt.Slice(self, at, at + separator.str().size()));
  EW_ASSIGN(const Value tail, rt.Slice(self, at + separator.str().size(), size));
  return rt.NewTuple({head, middle, tail});
}

// startswith and endswith: a string or a tuple of them, and optional bounds in characters.
template <bool kEnd>
Result<Value> HasAffix(Runtime& rt, const Value& self, CallArgs& args) {
  const char* const name = kEnd ? "endswith" : "startswith";
  EW_ASSIGN(BoundArgs a, rt.Bind(name, args, {"affix", "start", "end"}));
  EW_ASSIGN(const ByteRange range, CharacterRange(rt, self, a[1], a[2]));
  const std::string_view text = self.str().substr(range.begin, range.end - range.begin);
  if (!a[0]) return rt.ValueError(fmt::format("{}() needs an argument", name));
  std::vector<Value> candidates = {*a[0]};
  if (a[0]->kind() == Kind::kTuple) candidates = a[0]->items();
  for (const Value& candidate : candidates) {
    if (!candidate.is_string()) {
      return rt.ValueError(fmt::format("{} first arg must be str or a tuple of str, not {}", name,
                                       TypeName(candidate)));
    }
    EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(candidate.str().size())));
    if (kEnd ? text.ends_with(candidate.str()) : text.starts_with(candidate.str())) {
      return Value::Bool(true);
    }
  }
  return Value::Bool(false);
}

template <bool kRight, bool kRaise>
Result<Value> Find(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("find", args, {"sub", "start", "end"}));
  EW_ASSIGN(const Value sub, rt.TextArg(a[0], "the text to find"));
  EW_ASSIGN(const ByteRange range, CharacterRange(rt, self, a[1], a[2]));
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(self.str().size())));
  const std::string_view text = self.str().substr(range.begin, range.end - range.begin);
  const size_t at = kRight ? RFindBytes(text, sub.str()) : FindBytes(text, sub.str(), 0);
  if (at == std::string_view::npos) {
    if (kRaise) return rt.ValueError("substring not found");
    return Value::Int(-1);
  }
  return Value::Int(static_cast<int64_t>(CodePointCount(self.str().substr(0, range.begin + at))));
}

Result<Value> Count(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("count", args, {"sub", "start", "end"}));
  EW_ASSIGN(const Value sub, rt.TextArg(a[0], "the text to count"));
  EW_ASSIGN(const ByteRange range, CharacterRange(rt, self, a[1], a[2]));
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(self.str().size())));
  const std::string_view text = self.str().substr(range.begin, range.end - range.begin);
  if (sub.str().empty()) return Value::Int(static_cast<int64_t>(CodePointCount(text)) + 1);
  int64_t n = 0;
  for (size_t at = FindBytes(text, sub.str(), 0); at != std::string_view::npos;
       at = FindBytes(text, sub.str(), at + sub.str().size())) {
    ++n;
  }
  return Value::Int(n);
}

Result<Value> Replace(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("replace", args, {"old", "new", "count"}));
  EW_ASSIGN(const Value from, rt.TextArg(a[0], "the text to replace"));
  EW_ASSIGN(const Value to, rt.TextArg(a[1], "the replacement"));
  EW_ASSIGN(const int64_t count, rt.IntArg(a[2], -1, "count"));
  return ReplaceText(rt, self, from.str(), to, count);
}

Result<Value> Join(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("join", args, {"iterable"}));
  if (!a[0]) return rt.ValueError("join() needs an iterable");
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(*a[0]));
  MarkedTextBuilder out = rt.Builder();
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) {
      return rt.ValueError(
          fmt::format("sequence item {}: expected str instance, {} found", i, TypeName(items[i])));
    }
    if (i > 0) out.Append(self.text());
    out.Append(items[i].text());
  }
  return rt.NewText(std::move(out));
}

template <auto kChange>
Result<Value> Case(Runtime& rt, const Value& self, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this method", args, {}).status());
  return kChange(rt, self);
}

// isalpha() and its like: all characters are of the class, and there is one.
template <auto kClass>
Result<Value> All(Runtime& rt, const Value& self, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this method", args, {}).status());
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(self.str().size())));
  const std::string_view text = self.str();
  for (size_t at = 0; at < text.size();) {
    const CodePoint p = DecodeAt(text, at);
    if (!kClass(p.value)) return Value::Bool(false);
    at += p.length;
  }
  return Value::Bool(!text.empty());
}

bool IsAlnum(char32_t c) { return IsAlpha(c) || IsNumeric(c) || IsDigit(c); }

template <bool kUpper>
Result<Value> CaseIs(Runtime& rt, const Value& self, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this method", args, {}).status());
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(self.str().size())));
  bool cased = false;
  for (size_t at = 0; at < self.str().size();) {
    const CodePoint p = DecodeAt(self.str(), at);
    if (IsTitle(p.value) || (kUpper ? IsLower(p.value) : IsUpper(p.value))) {
      return Value::Bool(false);
    }
    cased = cased || IsCased(p.value);
    at += p.length;
  }
  return Value::Bool(cased);
}

Result<Value> IsTitleCased(Runtime& rt, const Value& self, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("istitle", args, {}).status());
  EW_ASSIGN(const Value titled, TitleText(rt, self));
  bool cased = false;
  for (size_t at = 0; at < self.str().size() && !cased;) {
    const CodePoint p = DecodeAt(self.str(), at);
    cased = IsCased(p.value);
    at += p.length;
  }
  return Value::Bool(cased && titled.str() == self.str());
}

Result<Value> IsAscii(Runtime& rt, const Value& self, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("isascii", args, {}).status());
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(self.str().size())));
  return Value::Bool(std::all_of(self.str().begin(), self.str().end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}

Result<Value> SplitLinesMethod(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("splitlines", args, {"keepends"}));
  EW_ASSIGN(std::vector<Value> lines, SplitLines(rt, self, a[0] && Truthy(*a[0])));
  return rt.NewList(std::move(lines));
}

template <char kAlign>
Result<Value> Justify(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("this method", args, {"width", "fillchar"}));
  EW_ASSIGN(const int64_t width, rt.IntArg(a[0], 0, "width"));
  Value fill = Value::String(kAlign == '0' ? "0" : " ");
  if (a[1]) {
    EW_ASSIGN(fill, rt.TextArg(a[1], "the fill character"));
  }
  if (CodePointCount(fill.str()) != 1) {
    return rt.ValueError("the fill character must be exactly one character long");
  }
  return PadText(rt, self, width, kAlign, fill.str());
}

template <bool kPrefix>
Result<Value> RemoveAffix(Runtime& rt, const Value& self, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("this method", args, {"affix"}));
  EW_ASSIGN(const Value affix, rt.TextArg(a[0], "the affix"));
  const std::string_view text = self.str();
  if (kPrefix && text.starts_with(affix.str())) {
    return rt.Slice(self, affix.str().size(), text.size());
  }
  if (!kPrefix && text.ends_with(affix.str())) {
    return rt.Slice(self, 0, text.size() - affix.str().size());
  }
  return self;
}

struct Entry {
  std::string_view name;
  Method method;
};
constexpr Entry kMethods[] = {
    {"strip", Strip<true, true>},
    {"lstrip", Strip<true, false>},
    {"rstrip", Strip<false, true>},
    {"split", Split},
    {"rsplit", RSplit},
    {"splitlines", SplitLinesMethod},
    {"partition", Partition<false>},
    {"rpartition", Partition<true>},
    {"startswith", HasAffix<false>},
    {"endswith", HasAffix<true>},
    {"find", Find<false, false>},
    {"rfind", Find<true, false>},
    {"index", Find<false, true>},
    {"rindex", Find<true, true>},
    {"count", Count},
    {"replace", Replace},
    {"join", Join},
    {"format", BraceFormat},
    {"upper", Case<UpperText>},
    {"lower", Case<LowerText>},
    {"title", Case<TitleText>},
    {"capitalize", Case<CapitalizeText>},
    {"casefold", Case<FoldText>},
    {"swapcase", Case<SwapCaseText>},
    {"isalpha", All<IsAlpha>},
    {"isalnum", All<IsAlnum>},
    {"isdecimal", All<IsDecimal>},
    {"isdigit", All<IsDigit>},
    {"isnumeric", All<IsNumeric>},
    {"isspace", All<IsSpace>},
    {"isupper", CaseIs<true>},
    {"islower", CaseIs<false>},
    {"istitle", IsTitleCased},
    {"isascii", IsAscii},
    {"center", Justify<'^'>},
    {"ljust", Justify<'<'>},
    {"rjust", Justify<'>'>},
    {"zfill", Justify<'0'>},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
};

}  // namespace

Result<Value> StringMethod(Runtime& rt, const Value& text, std::string_view name) {
  for (const Entry& entry : kMethods) {
    if (entry.name != name) continue;
    return rt.NewFunction(std::string(name),
                          [text, method = entry.method](Runtime& r, CallArgs& args) {
                            return method(r, text, args);
                          });
  }
  return Value();
}

}  // namespace edgewise::text::jinja
