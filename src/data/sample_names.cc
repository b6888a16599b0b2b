// The names that formats and fields have.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "data/sample.h"

namespace edgewise::data {
namespace {

constexpr std::string_view kColumns[] = {"messages",    "conversations", "prompt",    "completion",
                                         "instruction", "input",         "output",    "system",
                                         "history",     "text",          "input_ids", "labels",
                                         "tools",       "role",          "content"};

}  // namespace

std::string_view FormatName(Format format) {
  switch (format) {
    case Format::kMessages:
      return "messages";
    case Format::kShareGpt:
      return "sharegpt";
    case Format::kPromptCompletion:
      return "prompt-completion";
    case Format::kAlpaca:
      return "alpaca";
    case Format::kText:
      return "text";
    case Format::kTokens:
      return "tokens";
  }
  return "unknown";
}

Result<ColumnMap> ParseColumnMap(std::string_view text) {
  ColumnMap map;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == part.size()) {
      return InvalidArgument(
          fmt::format("column map: '{}' is not of the form name=field", part.substr(0, 80)));
    }
    const std::string_view name = part.substr(0, equals);
    if (std::find(std::begin(kColumns), std::end(kColumns), name) == std::end(kColumns)) {
      return InvalidArgument(
          fmt::format("column map: unknown name '{}' (known: {})", name.substr(0, 40),
                      fmt::join(std::begin(kColumns), std::end(kColumns), ", ")));
    }
    map[std::string(name)] = std::string(part.substr(equals + 1));
  }
  return map;
}

}  // namespace edgewise::data
