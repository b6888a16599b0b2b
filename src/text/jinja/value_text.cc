// str() and repr() as Python writes them.
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "text/jinja/runtime.h"
#include "text/jinja/unicode.h"
#include "text/jinja/value.h"

namespace edgewise::text::jinja {

namespace {

constexpr int kMaxReprDepth = 128;

void AppendQuoted(const Value& v, MarkedTextBuilder* out) {
  const MarkedText& text = v.text();
  const bool has_single = text.bytes.find('\'') != std::string::npos;
  const bool has_double = text.bytes.find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out->Append(std::string_view(&quote, 1));
  ForEachRun(text, 0, text.bytes.size(), [&](size_t begin, size_t end, uint8_t marks) {
    std::string piece;
    for (size_t at = begin; at < end;) {
      const CodePoint p = DecodeAt(text.bytes, at);
      const char32_t c = p.value;
      if (c == static_cast<char32_t>(quote) || c == '\\') {
        piece += '\\';
        piece += static_cast<char>(c);
      } else if (c == '\n') {
        piece += "\\n";
      } else if (c == '\r') {
        piece += "\\r";
      } else if (c == '\t') {
        piece += "\\t";
      } else if (IsPrintable(c)) {
        piece.append(text.bytes, at, p.length);
      } else if (c < 0x100) {
        piece += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
      } else if (c < 0x10000) {
        piece += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      } else {
        piece += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
      }
      at += p.length;
    }
    out->Append(piece, marks);
  });
  out->Append(std::string_view(&quote, 1));
}

}  // namespace

std::string FloatRepr(double f) {
  if (std::isnan(f)) return "nan";
  if (std::isinf(f)) return f < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, f, std::chars_format::scientific).ptr;
  std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (shortest.front() == '-') {
    out = "-";
    shortest.remove_prefix(1);
  }
  const size_t e = shortest.find('e');
  std::string digits;
  for (const char c : shortest.substr(0, e)) {
    if (c != '.') digits += c;
  }
  int exponent = 0;
  std::string_view exponent_text = shortest.substr(e + 1);
  if (exponent_text.front() == '+') exponent_text.remove_prefix(1);
  std::from_chars(exponent_text.data(), exponent_text.data() + exponent_text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {  // Python switches to an exponent here
    out += digits.substr(0, 1);
    if (digits.size() > 1) out.append(".").append(digits, 1);
    return out + fmt::format("e{}{:02d}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) {
    return fmt::format("{}0.{:0>{}}", out, digits,
                       digits.size() + static_cast<size_t>(-exponent - 1));
  }
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return fmt::format("{}{:0<{}}.0", out, digits, whole);
  return fmt::format("{}{}.{}", out, digits.substr(0, whole), digits.substr(whole));
}

bool AppendStr(const Value& v, MarkedTextBuilder* out) {
  if (v.is_string()) {
    out->Append(v.text());
    return true;
  }
  if (v.is_undefined()) return true;
  return AppendRepr(v, out);
}

bool AppendRepr(const Value& v, MarkedTextBuilder* out, int depth) {
  if (depth > kMaxReprDepth) return false;
  switch (v.kind()) {
    case Kind::kUndefined:
      out->Append("Undefined");
      return true;
    case Kind::kNone:
      out->Append("None");
      return true;
    case Kind::kBool:
      out->Append(v.integer() != 0 ? "True" : "False");
      return true;
    case Kind::kInt:
      out->Append(std::to_string(v.integer()));
      return true;
    case Kind::kFloat:
      out->Append(FloatRepr(v.number()));
      return true;
    case Kind::kString:
      AppendQuoted(v, out);
      return true;
    case Kind::kList:
    case Kind::kTuple: {
      const bool tuple = v.kind() == Kind::kTuple;
      out->Append(tuple ? "(" : "[");
      for (size_t i = 0; i < v.items().size() && !out->overflow(); ++i) {
        if (i > 0) out->Append(", ");
        if (!AppendRepr(v.items()[i], out, depth + 1)) return false;
      }
      if (tuple && v.items().size() == 1) out->Append(",");
      out->Append(tuple ? ")" : "]");
      return true;
    }
    case Kind::kDict: {
      out->Append("{");
      bool first = true;
      for (const auto& [key, value] : v.dict().entries()) {
        if (out->overflow()) break;
        if (!first) out->Append(", ");
        first = false;
        if (!AppendRepr(key, out, depth + 1)) return false;
        out->Append(": ");
        if (!AppendRepr(value, out, depth + 1)) return false;
      }
      out->Append("}");
      return true;
    }
    case Kind::kObject:
      if (const auto* ns = dynamic_cast<const Namespace*>(v.object())) {
        out->Append("<Namespace {");
        bool first = true;
        for (const auto& [key, value] : ns->attributes) {
          if (out->overflow()) break;
          if (!first) out->Append(", ");
          first = false;
          AppendQuoted(Value::String(key), out);
          out->Append(": ");
          if (!AppendRepr(value, out, depth + 1)) return false;
        }
        out->Append("}>");
        return true;
      }
      out->Append(fmt::format("<{}>", v.object()->type_name()));
      return true;
  }
  return true;
}

}  // namespace edgewise::text::jinja
