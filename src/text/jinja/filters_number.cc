// Filters whose result is a number, or the value itself.
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "text/jinja/runtime.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

// What Python's float() reads, underscores left out of it.
std::optional<double> ParseFloat(std::string_view s) {
  const ByteRange range = StripRange(s, true, true);
  s = s.substr(range.begin, range.end - range.begin);
  if (s.starts_with('+') && s.size() > 1 && s[1] != '-') s.remove_prefix(1);
  double out = 0;
  const auto parsed = std::from_chars(s.data(), s.data() + s.size(), out);
  if (s.empty() || parsed.ptr != s.data() + s.size() || parsed.ec == std::errc::invalid_argument) {
    return std::nullopt;
  }
  return out;
}

std::optional<int64_t> ParseInt(std::string_view s, int base) {
  const ByteRange range = StripRange(s, true, true);
  s = s.substr(range.begin, range.end - range.begin);
  bool negative = false;
  if (s.starts_with('+') || s.starts_with('-')) {
    negative = s[0] == '-';
    s.remove_prefix(1);
  }
  if (base == 16 && (s.starts_with("0x") || s.starts_with("0X"))) s.remove_prefix(2);
  if (base == 8 && (s.starts_with("0o") || s.starts_with("0O"))) s.remove_prefix(2);
  if (base == 2 && (s.starts_with("0b") || s.starts_with("0B"))) s.remove_prefix(2);
  int64_t out = 0;
  const auto parsed = std::from_chars(s.data(), s.data() + s.size(), out, base);
  if (s.empty() || s[0] == '-' || parsed.ec != std::errc() || parsed.ptr != s.data() + s.size()) {
    return std::nullopt;
  }
  return negative ? -out : out;
}

// int(f) when it fits.
std::optional<int64_t> Truncated(double f) {
  if (!(std::fabs(f) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(f);
}

Result<Value> Int(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("int", args, {"default", "base"}));
  EW_ASSIGN(const int64_t base, rt.IntArg(a[1], 10, "base"));
  if (base < 2 || base > 36) return rt.ValueError("base must be between 2 and 36");
  const Value fallback = a[0] ? *a[0] : Value::Int(0);
  std::optional<int64_t> out;
  if (in.is_string()) {
    out = ParseInt(in.str(), static_cast<int>(base));
    if (!out) {
      if (const auto f = ParseFloat(in.str())) out = Truncated(*f);
    }
  } else if (in.is_integral()) {
    out = in.integer();
  } else if (in.kind() == Kind::kFloat) {
    out = Truncated(in.number());
  } else if (in.is_undefined()) {
    return rt.ValueError(in.why_undefined());
  }
  return out ? Value::Int(*out) : fallback;
}

Result<Value> Float(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("float", args, {"default"}));
  if (in.is_number()) return Value::Float(in.number());
  if (in.is_undefined()) return rt.ValueError(in.why_undefined());
  if (in.is_string()) {
    if (const auto f = ParseFloat(in.str())) return Value::Float(*f);
  }
  return a[0] ? *a[0] : Value::Float(0);
}

Result<Value> Abs(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("abs", args, {}).status());
  if (in.kind() == Kind::kFloat) return Value::Float(std::fabs(in.number()));
  if (!in.is_integral()) {
    return rt.ValueError(fmt::format("bad operand type for abs(): '{}'", TypeName(in)));
  }
  if (in.integer() == INT64_MIN) {
    return rt.Error(ErrorKind::kLimit, "an integer does not fit 64 bits");
  }
  return Value::Int(in.integer() < 0 ? -in.integer() : in.integer());
}

Result<Value> Round(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("round", args, {"precision", "method"}));
  EW_ASSIGN(const int64_t precision, rt.IntArg(a[0], 0, "precision"));
  std::string_view method = "common";
  if (a[1]) {
    EW_ASSIGN(const Value m, rt.TextArg(a[1], "method"));
    if (m.str() != "common" && m.str() != "ceil" && m.str() != "floor") {
      return rt.ValueError("method must be common, ceil or floor");
    }
    method = m.str() == "ceil" ? "ceil" : m.str() == "floor" ? "floor" : "common";
  }
  if (!in.is_number()) {
    return rt.ValueError(fmt::format("type {} cannot be rounded", TypeName(in)));
  }
  if (precision < -300 || precision > 300) {
    return rt.Error(ErrorKind::kLimit, "a precision beyond 300 digits");
  }
  const double x = in.number();
  if (method == "common") {
    if (in.is_integral() && precision >= 0) return Value::Int(in.integer());
    if (precision >= 0 && precision <= 100 && std::isfinite(x)) {
      // The nearest decimal, ties by the exact binary value: what printing does.
      const std::string text = fmt::format("{:.{}f}", x, static_cast<int>(precision));
      double out = x;
      std::from_chars(text.data(), text.data() + text.size(), out);
      return Value::Float(out);
    }
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double rounded = std::nearbyint(x * scale) / scale;
    if (in.is_integral()) {
      if (const auto i = Truncated(rounded)) return Value::Int(*i);
    }
    return Value::Float(rounded);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return Value::Float((method == "ceil" ? std::ceil(x * scale) : std::floor(x * scale)) / scale);
}

Result<Value> Length(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("length", args, {}).status());
  switch (in.kind()) {
    case Kind::kUndefined:
      return Value::Int(0);
    case Kind::kString:
      EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(in.str().size())));
      return Value::Int(static_cast<int64_t>(CodePointCount(in.str())));
    case Kind::kList:
    case Kind::kTuple:
      return Value::Int(static_cast<int64_t>(in.items().size()));
    case Kind::kDict:
      return Value::Int(static_cast<int64_t>(in.dict().size()));
    default:
      return rt.ValueError(fmt::format("object of type '{}' has no len()", TypeName(in)));
  }
}

Result<Value> WordCount(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("wordcount", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(text.str().size())));
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.str().size();) {
    const CodePoint p = DecodeAt(text.str(), at);
    const bool word = p.value == '_' || IsAlpha(p.value) || IsNumeric(p.value);
    words += word && !inside ? 1 : 0;
    inside = word;
    at += p.length;
  }
  return Value::Int(words);
}

Result<Value> Default(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("default", args, {"default_value", "boolean"}));
  const bool replace = in.is_undefined() || (a[1] && Truthy(*a[1]) && !Truthy(in));
  if (!replace) return in;
  return a[0] ? *a[0] : Value::String("");
}

Result<Value> Attr(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("attr", args, {"name"}));
  EW_ASSIGN(const Value name, rt.TextArg(a[0], "the name"));
  // An attribute only, never a key.
  EW_ASSIGN(const Value found, rt.GetAttribute(in, name.str()));
  if (in.is_dict() && !found.is_undefined() && found.kind() != Kind::kObject) {
    return Value::Undefined(fmt::format("'dict object' has no attribute '{}'", name.str()));
  }
  return found;
}

struct Entry {
  std::string_view name;
  FilterFunction filter;
};
constexpr Entry kFilters[] = {
    {"int", Int},
    {"float", Float},
    {"abs", Abs},
    {"round", Round},
    {"length", Length},
    {"count", Length},
    {"wordcount", WordCount},
    {"default", Default},
    {"d", Default},
    {"attr", Attr},
};

}  // namespace

FilterFunction FindNumberFilter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace edgewise::text::jinja
