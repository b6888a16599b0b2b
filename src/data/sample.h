// One row of a data file, whatever its format, as plain data.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja/value.h"

namespace edgewise::data {

enum class Format {
  kMessages,          // {"messages": [{"role", "content", "weight"?}], "tools"?}
  kShareGpt,          // {"conversations": [{"from", "value"}], "system"?, "tools"?}
  kPromptCompletion,  // {"prompt", "completion"}: two strings or two lists of messages
  kAlpaca,            // {"instruction", "input"?, "output", "system"?, "history"?}
  kText,              // {"text"} or plain text
  kTokens,            // {"input_ids", "labels"?}
};
std::string_view FormatName(Format format);

// Label of a token that is not learned, in kTokens rows.
inline constexpr int32_t kIgnoreLabel = -100;

struct Sample {
  Format format = Format::kText;
  std::string where;  // "file:line", for messages

  // Chat formats: objects with role and content (and whatever else the row's messages have), and
  // the indices of the assistant messages that are learned, ascending, not empty.
  text::jinja::Value messages;
  text::jinja::Value tools = text::jinja::Value::None();
  std::vector<size_t> learned;

  std::string text;                  // kText
  std::vector<int32_t> ids, labels;  // kTokens; labels[t] belongs to ids[t], kIgnoreLabel: not
                                     // learned
};

// Which field of the data plays which part: "content" -> "value". Names that are not mapped keep
// their own. Top level: messages, conversations, prompt, completion, instruction, input, output,
// system, history, text, input_ids, labels, tools; inside of messages: role, content.
using ColumnMap = std::map<std::string, std::string, std::less<>>;

// "role=from,content=value". Errors: a part without "=", an unknown name.
Result<ColumnMap> ParseColumnMap(std::string_view text);

// One row. Fields are looked for in the order of Format. Errors say what is wrong and what to do;
// the caller adds the place.
Result<Sample> ParseSample(const text::jinja::Value& row, const ColumnMap& columns = {});
// The same from JSON text.
Result<Sample> ParseSample(std::string_view json, const ColumnMap& columns = {});

}  // namespace edgewise::data
