#include <fmt/format.h>
#include <simdjson.h>

#include <unordered_set>

#include "text/jinja/template.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

namespace dom = simdjson::dom;

Result<Value> Convert(const dom::element& element);

Result<Value> ConvertObject(const dom::object& object) {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_set<std::string_view> seen;
  for (const dom::key_value_pair& field : object) {
    if (!seen.insert(field.key).second) {
      return BadInput(fmt::format("duplicate key '{}'", field.key.substr(0, 80)));
    }
    EW_ASSIGN(Value value, Convert(field.value));
    entries.emplace_back(Value::String(std::string(field.key)), std::move(value));
  }
  return Value::MakeDict(std::move(entries));
}

Result<Value> Convert(const dom::element& element) {
  switch (element.type()) {
    case dom::element_type::NULL_VALUE:
      return Value::None();
    case dom::element_type::BOOL:
      return Value::Bool(bool(element));
    case dom::element_type::INT64:
      return Value::Int(int64_t(element));
    case dom::element_type::UINT64:
      return BadInput(
          fmt::format("integer {} does not fit 64 bits with a sign", uint64_t(element)));
    case dom::element_type::DOUBLE:
      return Value::Float(double(element));
    case dom::element_type::STRING:
      return Value::String(std::string(std::string_view(element)));
    case dom::element_type::ARRAY: {
      std::vector<Value> items;
      for (const dom::element item : dom::array(element)) {
        EW_ASSIGN(Value value, Convert(item));
        items.push_back(std::move(value));
      }
      return Value::List(std::move(items));
    }
    case dom::element_type::OBJECT:
      return ConvertObject(dom::object(element));
  }
  return Internal("a JSON element of unknown type");
}

// \uD800..\uDFFF that form no pair: depending on its version the parser lets them through.
bool HasLoneSurrogate(std::string_view json) {
  const auto unit = [&](size_t at) -> int {  // of "\uXXXX" at `at`, or -1
    if (at + 6 > json.size() || json[at] != '\\' || json[at + 1] != 'u') return -1;
    int value = 0;
    for (size_t i = at + 2; i < at + 6; ++i) {
      const char c = json[i];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return -1;
      value = value * 16 + digit;
    }
    return value;
  };
  for (size_t at = json.find('\\'); at != std::string_view::npos; at = json.find('\\', at)) {
    const int u = unit(at);
    if (u >= 0xDC00 && u <= 0xDFFF) return true;
    if (u >= 0xD800 && u <= 0xDBFF) {
      const int low = unit(at + 6);
      if (low < 0xDC00 || low > 0xDFFF) return true;
      at += 12;
    } else {
      at += u >= 0 ? 6 : 2;
    }
  }
  return false;
}

// What is wrong with the brackets or quotes of a malformed JSON text, in words.
std::string Diagnose(std::string_view json) {
  std::string open;  // brackets that wait for their end
  bool done = false;
  for (size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
    if (done) return fmt::format("something follows the value at byte {}", at);
    if (c == '\'') return fmt::format("single quotes at byte {}; JSON strings need \"", at);
    if (c == '"') {
      for (++at; at < json.size() && json[at] != '"'; ++at) at += json[at] == '\\' ? 1 : 0;
    } else if (c == '{' || c == '[') {
      open += c == '{' ? '}' : ']';
    } else if (c == '}' || c == ']') {
      if (open.empty() || open.back() != c) return fmt::format("unexpected '{}' at byte {}", c, at);
      open.pop_back();
    } else {
      continue;  // numbers, literals, commas: open.empty() says nothing yet
    }
    done = open.empty();
  }
  if (!open.empty()) {
    return fmt::format("it ends before the {} is closed", open.back() == '}' ? "object" : "array");
  }
  return "a value, comma or colon is missing or wrong";
}

}  // namespace

Result<Value> ParseJsonValue(std::string_view json, int max_depth) {
  if (HasLoneSurrogate(json)) {
    return BadInput("invalid JSON string: a lone surrogate (\\ud800 to \\udfff without its pair)");
  }
  dom::parser parser;
  if (parser.allocate(std::max<size_t>(json.size(), 64), static_cast<size_t>(max_depth)) !=
      simdjson::SUCCESS) {
    return OutOfMemory(fmt::format("cannot hold a JSON text of {} bytes", json.size()));
  }
  dom::element root;
  const auto error = parser.parse(json.data(), json.size()).get(root);
  switch (error) {
    case simdjson::SUCCESS:
      return Convert(root);
    case simdjson::DEPTH_ERROR:
      return BadInput(fmt::format("JSON nested too deep: more than {} levels", max_depth));
    case simdjson::UNESCAPED_CHARS:
      return BadInput(
          "invalid JSON string: a raw control character inside a string (write \\t, "
          "\\n, \\u00XX)");
    case simdjson::UTF8_ERROR:
      return BadInput("the text is not valid UTF-8");
    case simdjson::UNCLOSED_STRING:
      return BadInput("invalid JSON: a string is never closed");
    case simdjson::EMPTY:
      return BadInput("invalid JSON: the text is empty");
    case simdjson::STRING_ERROR:
      return BadInput("invalid JSON string: a bad escape");
    case simdjson::NUMBER_ERROR:
      return BadInput("invalid JSON: a malformed number, or an integer beyond 64 bits");
    case simdjson::TAPE_ERROR:
      return BadInput(fmt::format("invalid JSON: {}", Diagnose(json)));
    default:
      return BadInput(fmt::format("invalid JSON: {}", simdjson::error_message(error)));
  }
}

}  // namespace edgewise::text::jinja
