// The filter tojson as transformers defines it: Python's json.dumps without HTML escaping.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/runtime.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

void AppendEscape(char32_t c, std::string* out) {
  if (c >= 0x10000) {
    const uint32_t v = static_cast<uint32_t>(c) - 0x10000;
    *out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF));
  } else {
    *out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  }
}

void AppendJsonString(const MarkedText& text, bool ensure_ascii, MarkedTextBuilder* out) {
  out->Append("\"");
  ForEachRun(text, 0, text.bytes.size(), [&](size_t begin, size_t end, uint8_t marks) {
    std::string piece;
    for (size_t at = begin; at < end;) {
      const CodePoint p = DecodeAt(text.bytes, at);
      switch (p.value) {
        case '"':
          piece += "\\\"";
          break;
        case '\\':
          piece += "\\\\";
          break;
        case '\n':
          piece += "\\n";
          break;
        case '\r':
          piece += "\\r";
          break;
        case '\t':
          piece += "\\t";
          break;
        case '\f':
          piece += "\\f";
          break;
        case '\b':
          piece += "\\b";
          break;
        default:
          if (p.value < 0x20 || (ensure_ascii && p.value > 0x7E)) {
            AppendEscape(p.value, &piece);
          } else {
            piece.append(text.bytes, at, p.length);
          }
      }
      at += p.length;
    }
    out->Append(piece, marks);
  });
  out->Append("\"");
}

class JsonWriter {
 public:
  JsonWriter(Runtime& rt, const JsonStyle& style, MarkedTextBuilder* out)
      : rt_(rt), style_(style), out_(out) {}

  Status Write(const Value& v, int level) {
    EW_RETURN_IF_ERROR(rt_.Step());
    if (out_->overflow()) {
      return rt_.Error(ErrorKind::kLimit,
                       fmt::format("JSON of more than {} bytes", rt_.limits().output_bytes));
    }
    switch (v.kind()) {
      case Kind::kNone:
        out_->Append("null");
        return Status::Ok();
      case Kind::kBool:
        out_->Append(v.integer() != 0 ? "true" : "false");
        return Status::Ok();
      case Kind::kInt:
        out_->Append(std::to_string(v.integer()));
        return Status::Ok();
      case Kind::kFloat:
        out_->Append(FloatText(v.number()));
        return Status::Ok();
      case Kind::kString:
        AppendJsonString(v.text(), style_.ensure_ascii, out_);
        return Status::Ok();
      case Kind::kList:
      case Kind::kTuple: {
        if (v.items().empty()) {
          out_->Append("[]");
          return Status::Ok();
        }
        out_->Append("[");
        for (size_t i = 0; i < v.items().size(); ++i) {
          if (i > 0) out_->Append(style_.item_separator);
          NewLine(level + 1);
          EW_RETURN_IF_ERROR(Write(v.items()[i], level + 1));
        }
        NewLine(level);
        out_->Append("]");
        return Status::Ok();
      }
      case Kind::kDict:
        return WriteDict(v, level);
      default:
        return rt_.ValueError(
            fmt::format("Object of type {} is not JSON serializable", TypeName(v)));
    }
  }

 private:
  static std::string FloatText(double f) {
    if (std::isnan(f)) return "NaN";
    if (std::isinf(f)) return f < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(f);
  }

  void NewLine(int level) {
    if (style_.indent < 0) return;
    out_->Append("\n");
    out_->Append(std::string(static_cast<size_t>(style_.indent * level), ' '));
  }

  Status WriteDict(const Value& v, int level) {
    std::vector<std::pair<Value, Value>> entries = v.dict().entries();
    if (entries.empty()) {
      out_->Append("{}");
      return Status::Ok();
    }
    if (style_.sort_keys) {
      Status failure;
      std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
        const Result<int> order = rt_.Order(a.first, b.first);
        if (!order.ok()) failure = order.status();
        return order.ok() && *order < 0;
      });
      EW_RETURN_IF_ERROR(failure);
    }
    out_->Append("{");
    bool first = true;
    for (const auto& [key, value] : entries) {
      if (!first) out_->Append(style_.item_separator);
      first = false;
      NewLine(level + 1);
      EW_RETURN_IF_ERROR(WriteKey(key));
      out_->Append(style_.key_separator);
      EW_RETURN_IF_ERROR(Write(value, level + 1));
    }
    NewLine(level);
    out_->Append("}");
    return Status::Ok();
  }

  Status WriteKey(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        AppendJsonString(key.text(), style_.ensure_ascii, out_);
        return Status::Ok();
      case Kind::kNone:
        out_->Append("\"null\"");
        return Status::Ok();
      case Kind::kBool:
        out_->Append(key.integer() != 0 ? "\"true\"" : "\"false\"");
        return Status::Ok();
      case Kind::kInt:
        out_->Append(fmt::format("\"{}\"", key.integer()));
        return Status::Ok();
      case Kind::kFloat:
        out_->Append(fmt::format("\"{}\"", FloatText(key.number())));
        return Status::Ok();
      default:
        return rt_.ValueError(fmt::format("JSON keys must be strings, not {}", TypeName(key)));
    }
  }

  Runtime& rt_;
  const JsonStyle& style_;
  MarkedTextBuilder* out_;
};

}  // namespace

Status AppendJson(Runtime& rt, const Value& v, const JsonStyle& style, MarkedTextBuilder* out) {
  return JsonWriter(rt, style, out).Write(v, 0);
}

}  // namespace edgewise::text::jinja
