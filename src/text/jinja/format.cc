// Python's two ways of formatting: "%s and %05.2f" % values, and "{} {name:>10}".format(...).
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "text/jinja/runtime.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

constexpr int64_t kMaxWidth = 10'000;
constexpr int64_t kMaxPrecision = 100;

struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '=' or 0: by type
  char sign = '-';
  bool alternate = false;
  bool comma = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

// Digits at *at; -1 when there are none or too many.
int64_t TakeNumber(std::string_view s, size_t* at) {
  int64_t n = -1;
  while (*at < s.size() && s[*at] >= '0' && s[*at] <= '9') {
    n = std::max<int64_t>(n, 0) * 10 + (s[*at] - '0');
    if (n > kMaxWidth) n = kMaxWidth + 1;
    ++*at;
  }
  return n;
}

std::string GroupThousands(const std::string& digits) {
  std::string out;
  const size_t whole = std::min(digits.find_first_of(".e"), digits.size());
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out.append(digits, whole);
}

// The digits of |v| for the type of the spec, without sign; nothing when the type does not fit.
std::optional<std::string> NumberDigits(const Value& v, const Spec& spec) {
  const int precision = static_cast<int>(spec.precision);
  switch (spec.type) {
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
    case 'b': {
      int64_t i = v.integer();
      if (v.kind() == Kind::kFloat) {
        if (!(std::fabs(v.number()) < 9.2e18)) return std::nullopt;
        i = static_cast<int64_t>(v.number());
      }
      const uint64_t u = i < 0 ? 0 - static_cast<uint64_t>(i) : static_cast<uint64_t>(i);
      std::string digits = spec.type == 'x'   ? fmt::format("{:x}", u)
                           : spec.type == 'X' ? fmt::format("{:X}", u)
                           : spec.type == 'o' ? fmt::format("{:o}", u)
                           : spec.type == 'b' ? fmt::format("{:b}", u)
                                              : fmt::format("{}", u);
      if (spec.alternate && spec.type != 'd' && spec.type != 'i' && spec.type != 'u') {
        digits = fmt::format("0{}{}", spec.type, digits);
      }
      return digits;
    }
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", std::fabs(v.number()), precision < 0 ? 6 : precision);
    case 'e':
      return fmt::format("{:.{}e}", std::fabs(v.number()), precision < 0 ? 6 : precision);
    case 'E':
      return fmt::format("{:.{}E}", std::fabs(v.number()), precision < 0 ? 6 : precision);
    case 'g':
      return fmt::format("{:.{}g}", std::fabs(v.number()), precision < 0 ? 6 : precision);
    case '%':
      return fmt::format("{:.{}f}%", std::fabs(v.number()) * 100, precision < 0 ? 6 : precision);
    case 0:
      if (v.kind() == Kind::kFloat) {
        return precision < 0 ? FloatRepr(std::fabs(v.number()))
                             : fmt::format("{:.{}g}", std::fabs(v.number()), precision);
      }
      return std::to_string(v.integer() < 0 ? 0 - static_cast<uint64_t>(v.integer())
                                            : static_cast<uint64_t>(v.integer()));
    default:
      return std::nullopt;
  }
}

void Pad(int64_t count, const std::string& fill, MarkedTextBuilder* out) {
  for (int64_t i = 0; i < count; ++i) out->Append(fill);
}

Status AppendPadded(Runtime& rt, const Value& text, const Spec& spec, char default_align,
                    MarkedTextBuilder* out) {
  const MarkedText& t = text.text();
  size_t end = t.bytes.size();
  if (spec.precision >= 0) end = OffsetOfCodePoint(t.bytes, static_cast<size_t>(spec.precision));
  int64_t pad = 0;
  if (spec.width > 0) {
    EW_RETURN_IF_ERROR(rt.Work(static_cast<int64_t>(end)));
    pad =
        spec.width - static_cast<int64_t>(CodePointCount(std::string_view(t.bytes).substr(0, end)));
  }
  const char align = spec.align != 0 ? spec.align : default_align;
  const int64_t left = pad <= 0 ? 0 : align == '<' ? 0 : align == '^' ? pad / 2 : pad;
  Pad(left, spec.fill, out);
  out->Append(t, 0, end);
  Pad(pad - left, spec.fill, out);
  return Status::Ok();
}

Status AppendNumber(Runtime& rt, const Value& v, const Spec& spec, MarkedTextBuilder* out) {
  std::optional<std::string> digits = NumberDigits(v, spec);
  if (!digits) {
    return rt.ValueError(fmt::format("format code '{}' does not fit a {}", spec.type, TypeName(v)));
  }
  if (spec.comma) digits = GroupThousands(*digits);
  const bool negative = v.kind() == Kind::kFloat ? std::signbit(v.number()) : v.integer() < 0;
  const std::string sign(negative || spec.sign != '-' ? 1 : 0, negative ? '-' : spec.sign);
  if (spec.align == '=') {
    out->Append(sign);
    Pad(spec.width - static_cast<int64_t>(sign.size() + digits->size()), spec.fill, out);
    out->Append(*digits);
    return Status::Ok();
  }
  Spec padding = spec;
  padding.precision = -1;
  return AppendPadded(rt, Value::String(fmt::format("{}{}", sign, *digits)), padding, '>', out);
}

// One % conversion that starts behind the '%'.
Status AppendPercent(Runtime& rt, std::string_view format, size_t* at, const Value& values,
                     size_t* next, MarkedTextBuilder* out) {
  const Value* value = nullptr;
  if (*at < format.size() && format[*at] == '(') {
    const size_t close = format.find(')', *at);
    if (close == std::string_view::npos) return rt.ValueError("incomplete format key");
    if (!values.is_dict()) return rt.ValueError("format requires a mapping");
    value = values.dict().Find(format.substr(*at + 1, close - *at - 1));
    if (value == nullptr) return rt.ValueError("a key of the format is not in the mapping");
    *at = close + 1;
  }
  Spec spec;
  for (; *at < format.size(); ++*at) {
    const char c = format[*at];
    if (c == '-') {
      spec.align = '<';
    } else if (c == '0') {
      if (spec.align == 0) spec.align = '=', spec.fill.assign(1, '0');
    } else if (c == '+' || c == ' ') {
      spec.sign = c;
    } else if (c == '#') {
      spec.alternate = true;
    } else {
      break;
    }
  }
  spec.width = std::max<int64_t>(0, TakeNumber(format, at));
  if (*at < format.size() && format[*at] == '.') {
    ++*at;
    spec.precision = std::max<int64_t>(0, TakeNumber(format, at));
  }
  if (*at >= format.size()) return rt.ValueError("incomplete format");
  spec.type = format[(*at)++];
  if (spec.type == '%') {
    out->Append("%");
    return Status::Ok();
  }
  if (spec.width > kMaxWidth) return rt.Error(ErrorKind::kLimit, "format width too large");
  if (value == nullptr) {
    const bool many = values.kind() == Kind::kTuple;
    if (*next >= (many ? values.items().size() : 1)) {
      return rt.ValueError("not enough arguments for format string");
    }
    value = many ? &values.items()[*next] : &values;
    ++*next;
  }
  if (spec.type == 's' || spec.type == 'r' || spec.type == 'a') {
    Value text;
    if (spec.type == 's') {
      EW_ASSIGN(text, rt.ToText(*value));
    } else {
      MarkedTextBuilder repr = rt.Builder();
      if (!AppendRepr(*value, &repr)) return rt.Error(ErrorKind::kLimit, "nested too deep");
      EW_ASSIGN(text, rt.NewText(std::move(repr)));
    }
    if (spec.fill == "0") spec.fill.assign(1, ' '), spec.align = '>';
    return AppendPadded(rt, text, spec, '>', out);
  }
  if (spec.precision > kMaxPrecision) return rt.Error(ErrorKind::kLimit, "precision too large");
  if (!value->is_number()) {
    return rt.ValueError(
        fmt::format("%{} format: a number is required, not {}", spec.type, TypeName(*value)));
  }
  return AppendNumber(rt, *value, spec, out);
}

// "[[fill]align][sign][#][0][width][,][.precision][type]"
Result<Spec> ParseSpec(Runtime& rt, std::string_view s) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!s.empty()) {
    const size_t n = DecodeAt(s, 0).length;
    if (n < s.size() && is_align(s[n])) {
      spec.fill = std::string(s.substr(0, n));
      spec.align = s[n];
      at = n + 1;
    } else if (is_align(s[0])) {
      spec.align = s[0];
      at = 1;
    }
  }
  const auto take = [&](char c) { return at < s.size() && s[at] == c ? (++at, true) : false; };
  if (take('+')) {
    spec.sign = '+';
  } else if (take(' ')) {
    spec.sign = ' ';
  } else {
    take('-');
  }
  spec.alternate = take('#');
  if (take('0') && spec.align == 0) spec.align = '=', spec.fill.assign(1, '0');
  spec.width = std::max<int64_t>(0, TakeNumber(s, &at));
  spec.comma = take(',');
  if (take('.')) spec.precision = std::max<int64_t>(0, TakeNumber(s, &at));
  if (at < s.size()) spec.type = s[at++];
  if (at != s.size()) return rt.ValueError("invalid format specifier");
  if (spec.width > kMaxWidth || spec.precision > kMaxWidth) {
    return rt.Error(ErrorKind::kLimit, "format width too large");
  }
  return spec;
}

Status AppendField(Runtime& rt, std::string_view field, CallArgs& args, size_t* next,
                   MarkedTextBuilder* out) {
  const size_t colon = field.find(':');
  const std::string_view spec_text =
      colon == std::string_view::npos ? std::string_view() : field.substr(colon + 1);
  std::string_view name = field.substr(0, colon);
  bool repr = false;
  if (name.size() >= 2 && name[name.size() - 2] == '!') {
    repr = name.back() == 'r';
    name.remove_suffix(2);
  }
  if (name.find_first_of(".[") != std::string_view::npos) {
    return rt.Error(ErrorKind::kForbidden, "attributes inside of format fields");
  }
  const Value* value = nullptr;
  size_t position = *next;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), position);
  if (name.empty() || (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size())) {
    if (name.empty()) ++*next;
    if (position < args.positional.size()) value = &args.positional[position];
  } else {
    for (const auto& [key, v] : args.named) {
      if (key == name) value = &v;
    }
  }
  if (value == nullptr) {
    return rt.ValueError(fmt::format("no argument for the format field '{}'", name.substr(0, 40)));
  }
  EW_ASSIGN(Spec spec, ParseSpec(rt, spec_text));
  if (!repr && value->is_number() && (value->kind() != Kind::kBool || spec.type != 0)) {
    if (spec.precision > kMaxPrecision) return rt.Error(ErrorKind::kLimit, "precision too large");
    return AppendNumber(rt, *value, spec, out);
  }
  Value text;
  if (repr) {
    MarkedTextBuilder builder = rt.Builder();
    if (!AppendRepr(*value, &builder)) return rt.Error(ErrorKind::kLimit, "nested too deep");
    EW_ASSIGN(text, rt.NewText(std::move(builder)));
  } else {
    EW_ASSIGN(text, rt.ToText(*value));
  }
  if (spec.type != 0 && spec.type != 's') {
    return rt.ValueError(
        fmt::format("unknown format code '{}' for a {}", spec.type, TypeName(*value)));
  }
  if (spec.align == '=') spec.align = '<';
  return AppendPadded(rt, text, spec, '<', out);
}

}  // namespace

Result<Value> PercentFormat(Runtime& rt, const Value& format, const Value& values) {
  const std::string_view f = format.str();
  MarkedTextBuilder out = rt.Builder();
  size_t next = 0;
  for (size_t at = 0; at < f.size();) {
    const size_t percent = std::min(f.find('%', at), f.size());
    out.Append(format.text(), at, percent);
    at = percent;
    if (at >= f.size()) break;
    EW_RETURN_IF_ERROR(rt.Step());
    ++at;
    EW_RETURN_IF_ERROR(AppendPercent(rt, f, &at, values, &next, &out));
  }
  const bool many = values.kind() == Kind::kTuple;
  if (many ? next < values.items().size()
           : (next == 0 && !values.is_dict() && !values.is_sequence())) {
    return rt.ValueError("not all arguments converted during string formatting");
  }
  return rt.NewText(std::move(out));
}

Result<Value> BraceFormat(Runtime& rt, const Value& format, CallArgs& args) {
  const std::string_view f = format.str();
  MarkedTextBuilder out = rt.Builder();
  size_t next = 0;
  for (size_t at = 0; at < f.size();) {
    const size_t brace = std::min(f.find_first_of("{}", at), f.size());
    out.Append(format.text(), at, brace);
    at = brace;
    if (at >= f.size()) break;
    EW_RETURN_IF_ERROR(rt.Step());
    if (at + 1 < f.size() && f[at + 1] == f[at]) {
      out.Append(format.text(), at, at + 1);
      at += 2;
      continue;
    }
    const size_t close = f.find('}', at);
    if (f[at] == '}' || close == std::string_view::npos) {
      return rt.ValueError("a single brace in a format string");
    }
    EW_RETURN_IF_ERROR(AppendField(rt, f.substr(at + 1, close - at - 1), args, &next, &out));
    at = close + 1;
  }
  return rt.NewText(std::move(out));
}

}  // namespace edgewise::text::jinja
