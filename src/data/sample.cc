#include "data/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "data/json_type.h"
#include "text/chat_template.h"
#include "text/jinja/template.h"

namespace edgewise::data {

namespace {

using text::jinja::Kind;
using text::jinja::Value;

constexpr std::string_view kRoles[] = {"system",   "user",      "assistant",    "tool",
                                       "function", "developer", "tool_results", "ipython"};

class RowReader {
 public:
  RowReader(const Value& row, const ColumnMap& columns) : row_(row), columns_(columns) {}

  Result<Sample> Read() {
    if (!row_.is_dict()) {
      return BadInput(fmt::format("a row must be an object, this is {}", TypeOf(row_)));
    }
    if (Column("messages") != nullptr) return ReadMessages();
    if (Column("conversations") != nullptr) return ReadShareGpt();
    if (Column("prompt") != nullptr || Column("completion") != nullptr) return ReadPrompt();
    if (Column("instruction") != nullptr || Column("output") != nullptr) return ReadAlpaca();
    if (Column("text") != nullptr) return ReadText();
    if (Column("input_ids") != nullptr) return ReadTokens();
    std::string found;
    for (const auto& [key, value] : row_.dict().entries()) {
      if (found.size() > 200) break;
      found += fmt::format("{}{}", found.empty() ? "" : ", ", key.str());
    }
    return BadInput(fmt::format(
        "no known field (messages, conversations, prompt and completion, instruction and output, "
        "text, input_ids); the row has {}. Name the fields with --map, for example "
        "--map prompt=question,completion=answer",
        found.empty() ? "none" : found));
  }

 private:
  std::string_view Mapped(std::string_view name) const {
    const auto it = columns_.find(name);
    return it == columns_.end() ? name : std::string_view(it->second);
  }
  const Value* Column(std::string_view name) const { return row_.dict().Find(Mapped(name)); }

  // A string column; `required`: it has to be there. Absent, null and not required: "".
  Result<std::string> Text(std::string_view name, bool required) const {
    const Value* v = Column(name);
    if (v == nullptr || (v->is_none() && !required)) {
      if (!required) return std::string();
      return BadInput(fmt::format("'{}' is missing", Mapped(name)));
    }
    if (!v->is_string()) {
      return BadInput(fmt::format("{} is {}, must be a string", Mapped(name), TypeOf(*v)));
    }
    return std::string(v->str());
  }

  Status ReadTools(Sample* sample) const {
    const Value* tools = Column("tools");
    if (tools == nullptr || tools->is_none()) return Status::Ok();
    Value parsed = *tools;
    if (tools->is_string()) {
      if (tools->str().empty()) return Status::Ok();
      EW_ASSIGN(parsed, text::jinja::ParseJsonValue(tools->str()).WithContext("tools"));
    }
    if (!parsed.is_sequence()) {
      return BadInput(fmt::format("tools is {}, must be a list", TypeOf(parsed)));
    }
    if (!parsed.items().empty()) sample->tools = parsed;
    return Status::Ok();
  }

  // The content of a message as one string: parts of type text are joined.
  Result<Value> Content(const Value& message, size_t i) const {
    const std::string_view name = Mapped("content");
    const Value* content = message.dict().Find(name);
    const Value* calls = message.dict().Find("tool_calls");
    const bool has_calls = calls != nullptr && calls->is_sequence() && !calls->items().empty();
    if (content == nullptr) {
      if (has_calls) return Value::String("");
      return BadInput(fmt::format("message {} has no {}", i, name));
    }
    if (content->is_string()) return *content;
    if (content->is_none()) {
      if (has_calls) return Value::String("");
      return BadInput(fmt::format("{} of message {} is null and there are no tool calls", name, i));
    }
    if (!content->is_sequence()) {
      return BadInput(
          fmt::format("{} of message {} is {}, must be a string", name, i, TypeOf(*content)));
    }
    std::string joined;
    for (const Value& part : content->items()) {
      const Value* text = part.is_dict() ? part.dict().Find("text") : nullptr;
      if (text == nullptr || !text->is_string()) {
        return BadInput(fmt::format(
            "{} of message {} has a part that is not text; only text can be learned", name, i));
      }
      joined += text->str();
    }
    return Value::String(std::move(joined));
  }

  // One message of a messages list, checked. *weight: whether its weight lets it be learned.
  Result<Value> Message(const Value& message, size_t i, bool* weight) const {
    if (!message.is_dict()) {
      return BadInput(fmt::format("message {} must be an object, this is {}", i, TypeOf(message)));
    }
    const std::string_view role_name = Mapped("role");
    const Value* role = message.dict().Find(role_name);
    if (role == nullptr) return BadInput(fmt::format("message {} has no {}", i, role_name));
    if (!role->is_string()) {
      return BadInput(
          fmt::format("{} of message {} is {}, must be a string", role_name, i, TypeOf(*role)));
    }
    std::string name(role->str());
    // Mapped columns come with the role names of their origin.
    if (role_name != "role") {
      if (const auto speaker = SpeakerRole(name)) name = *speaker;
    }
    if (std::find(std::begin(kRoles), std::end(kRoles), name) == std::end(kRoles)) {
      return BadInput(fmt::format(
          "unknown role '{}' in message {} (known: system, user, assistant, tool, developer)",
          name.substr(0, 40), i));
    }
    EW_ASSIGN(Value content, Content(message, i));
    *weight = true;
    std::vector<std::pair<Value, Value>> entries = {{Value::String("role"), Value::String(name)},
                                                    {Value::String("content"), std::move(content)}};
    for (const auto& [key, value] : message.dict().entries()) {
      const std::string_view k = key.str();
      if (k == "weight") {
        if (!value.is_number() && !value.is_none()) {
          return BadInput(
              fmt::format("weight of message {} is {}, must be 0 or 1", i, TypeOf(value)));
        }
        *weight = value.is_none() || value.number() != 0;
      } else if (k != "role" && k != "content" && k != role_name && k != Mapped("content")) {
        entries.emplace_back(key, value);
      }
    }
    return Value::MakeDict(std::move(entries));
  }

  // Appends the messages of a list; those of the assistant are learned if `learn`.
  Status AppendMessages(const Value& list, bool learn, std::vector<Value>* messages, Sample* sample,
                        bool* has_assistant) const {
    for (const Value& item : list.items()) {
      bool weight = true;
      EW_ASSIGN(Value message, Message(item, messages->size(), &weight));
      const bool assistant = message.dict().Find("role")->str() == "assistant";
      *has_assistant = *has_assistant || assistant;
      if (assistant && learn && weight) sample->learned.push_back(messages->size());
      messages->push_back(std::move(message));
    }
    return Status::Ok();
  }

  Result<Sample> ReadMessages() const {
    const Value& list = *Column("messages");
    if (!list.is_sequence()) {
      return BadInput(
          fmt::format("{} must be a list, this is {}", Mapped("messages"), TypeOf(list)));
    }
    if (list.items().empty()) return BadInput(fmt::format("{} is empty", Mapped("messages")));
    Sample sample;
    sample.format = Format::kMessages;
    std::vector<Value> messages;
    bool has_assistant = false;
    EW_RETURN_IF_ERROR(AppendMessages(list, true, &messages, &sample, &has_assistant));
    if (!has_assistant) return BadInput("no assistant turn: nothing to learn");
    if (sample.learned.empty()) {
      return BadInput("all assistant turns have weight 0: nothing to learn");
    }
    sample.messages = Value::List(std::move(messages));
    EW_RETURN_IF_ERROR(ReadTools(&sample));
    return sample;
  }

  static std::optional<std::string> SpeakerRole(std::string_view from) {
    if (from == "human" || from == "user") return "user";
    if (from == "gpt" || from == "assistant" || from == "model" || from == "chatgpt" ||
        from == "function_call") {
      return "assistant";
    }
    if (from == "system") return "system";
    if (from == "observation" || from == "tool" || from == "function_response") return "tool";
    return std::nullopt;
  }

  Result<Sample> ReadShareGpt() const {
    const Value& list = *Column("conversations");
    if (!list.is_sequence()) {
      return BadInput(
          fmt::format("{} must be a list, this is {}", Mapped("conversations"), TypeOf(list)));
    }
    if (list.items().empty()) return BadInput(fmt::format("{} is empty", Mapped("conversations")));
    Sample sample;
    sample.format = Format::kShareGpt;
    std::vector<Value> messages;
    EW_ASSIGN(std::string system, Text("system", false));
    if (!system.empty()) messages.push_back(text::ChatMessage("system", std::move(system)));
    // The usual names of this format, unless others are mapped.
    const std::string_view from_name = columns_.count("role") != 0 ? Mapped("role") : "from";
    const std::string_view value_name =
        columns_.count("content") != 0 ? Mapped("content") : "value";
    for (size_t i = 0; i < list.items().size(); ++i) {
      const Value& turn = list.items()[i];
      if (!turn.is_dict()) {
        return BadInput(fmt::format("turn {} must be an object, this is {}", i, TypeOf(turn)));
      }
      const Value* from = turn.dict().Find(from_name);
      if (from == nullptr) return BadInput(fmt::format("turn {} has no '{}'", i, from_name));
      const std::optional<std::string> role =
          from->is_string() ? SpeakerRole(from->str()) : std::nullopt;
      if (!role) {
        return BadInput(fmt::format(
            "unknown speaker {} in turn {} (known: human, gpt, system, function_call, observation)",
            from->is_string() ? fmt::format("'{}'", from->str().substr(0, 40))
                              : std::string(TypeOf(*from)),
            i));
      }
      const Value* value = turn.dict().Find(value_name);
      if (value == nullptr) return BadInput(fmt::format("turn {} has no {}", i, value_name));
      if (!value->is_string()) {
        return BadInput(
            fmt::format("{} of turn {} is {}, must be a string", value_name, i, TypeOf(*value)));
      }
      if (*role == "assistant") sample.learned.push_back(messages.size());
      messages.push_back(text::ChatMessage(*role, std::string(value->str())));
    }
    if (sample.learned.empty()) return BadInput("no assistant turn (gpt): nothing to learn");
    sample.messages = Value::List(std::move(messages));
    EW_RETURN_IF_ERROR(ReadTools(&sample));
    return sample;
  }

  Result<Sample> ReadPrompt() const {
    const Value* prompt = Column("prompt");
    const Value* completion = Column("completion");
    if (prompt == nullptr || completion == nullptr) {
      return BadInput(fmt::format("{} without {}", Mapped(prompt ? "prompt" : "completion"),
                                  Mapped(prompt ? "completion" : "prompt")));
    }
    Sample sample;
    sample.format = Format::kPromptCompletion;
    std::vector<Value> messages;
    if (prompt->is_sequence() != completion->is_sequence()) {
      return BadInput(fmt::format("prompt is {} and completion {}: both must have the same form",
                                  TypeOf(*prompt), TypeOf(*completion)));
    }
    if (prompt->is_sequence()) {
      bool has_assistant = false, ignored = false;
      EW_RETURN_IF_ERROR(AppendMessages(*prompt, false, &messages, &sample, &ignored));
      EW_RETURN_IF_ERROR(AppendMessages(*completion, true, &messages, &sample, &has_assistant));
      if (sample.learned.empty()) {
        return BadInput("completion has no assistant turn: nothing to learn");
      }
    } else {
      EW_ASSIGN(std::string question, Text("prompt", true));
      EW_ASSIGN(std::string answer, Text("completion", true));
      if (answer.empty()) return BadInput("empty completion: nothing to learn");
      messages.push_back(text::ChatMessage("user", std::move(question)));
      messages.push_back(text::ChatMessage("assistant", std::move(answer)));
      sample.learned = {1};
    }
    sample.messages = Value::List(std::move(messages));
    EW_RETURN_IF_ERROR(ReadTools(&sample));
    return sample;
  }

  Result<Sample> ReadAlpaca() const {
    if (Column("output") == nullptr) {
      return BadInput(fmt::format("{} without {}", Mapped("instruction"), Mapped("output")));
    }
    if (Column("instruction") == nullptr) {
      return BadInput(fmt::format("{} without {}", Mapped("output"), Mapped("instruction")));
    }
    EW_ASSIGN(std::string instruction, Text("instruction", true));
    EW_ASSIGN(std::string input, Text("input", false));
    EW_ASSIGN(std::string output, Text("output", true));
    EW_ASSIGN(std::string system, Text("system", false));
    if (output.empty()) return BadInput("empty output: nothing to learn");
    Sample sample;
    sample.format = Format::kAlpaca;
    std::vector<Value> messages;
    if (!system.empty()) messages.push_back(text::ChatMessage("system", std::move(system)));
    const Value* history = Column("history");
    if (history != nullptr && !history->is_none()) {
      if (!history->is_sequence()) {
        return BadInput(fmt::format("history is {}, must be a list of pairs", TypeOf(*history)));
      }
      for (const Value& pair : history->items()) {
        if (!pair.is_sequence() || pair.items().size() != 2 || !pair.items()[0].is_string() ||
            !pair.items()[1].is_string()) {
          return BadInput("each entry of history must be a pair of strings");
        }
        messages.push_back(text::ChatMessage("user", std::string(pair.items()[0].str())));
        sample.learned.push_back(messages.size());
        messages.push_back(text::ChatMessage("assistant", std::string(pair.items()[1].str())));
      }
    }
    if (!input.empty()) instruction.append("\n").append(input);
    messages.push_back(text::ChatMessage("user", std::move(instruction)));
    sample.learned.push_back(messages.size());
    messages.push_back(text::ChatMessage("assistant", std::move(output)));
    sample.messages = Value::List(std::move(messages));
    return sample;
  }

  Result<Sample> ReadText() const {
    Sample sample;
    EW_ASSIGN(sample.text, Text("text", true));
    if (sample.text.empty()) return BadInput("empty text: nothing to learn");
    return sample;
  }

  Result<std::vector<int32_t>> Integers(std::string_view name, const Value& list) const {
    if (!list.is_sequence()) {
      return BadInput(fmt::format("{} is {}, must be a list of integers", name, TypeOf(list)));
    }
    std::vector<int32_t> out;
    out.reserve(list.items().size());
    for (const Value& v : list.items()) {
      if (v.kind() != Kind::kInt || v.integer() < kIgnoreLabel ||
          v.integer() > std::numeric_limits<int32_t>::max()) {
        return BadInput(fmt::format("{} holds something that is not a token id", name));
      }
      out.push_back(static_cast<int32_t>(v.integer()));
    }
    return out;
  }

  Result<Sample> ReadTokens() const {
    Sample sample;
    sample.format = Format::kTokens;
    EW_ASSIGN(sample.ids, Integers(Mapped("input_ids"), *Column("input_ids")));
    if (sample.ids.empty()) return BadInput("input_ids is empty");
    if (std::any_of(sample.ids.begin(), sample.ids.end(), [](int32_t id) { return id < 0; })) {
      return BadInput("input_ids holds a negative id");
    }
    sample.labels = sample.ids;
    if (const Value* labels = Column("labels"); labels != nullptr && !labels->is_none()) {
      EW_ASSIGN(sample.labels, Integers(Mapped("labels"), *labels));
    }
    if (sample.labels.size() != sample.ids.size()) {
      return BadInput(
          fmt::format("{} labels for {} input_ids", sample.labels.size(), sample.ids.size()));
    }
    for (size_t t = 0; t < sample.ids.size(); ++t) {
      const int32_t label = sample.labels[t];
      if (label != kIgnoreLabel && label != sample.ids[t]) {
        return BadInput(fmt::format(
            "label {} at position {} is neither the token there nor -100: labels must stand at "
            "their own tokens, not shifted",
            label, t));
      }
    }
    return sample;
  }

  const Value& row_;
  const ColumnMap& columns_;
};

}  // namespace

Result<Sample> ParseSample(const Value& row, const ColumnMap& columns) {
  return RowReader(row, columns).Read();
}

Result<Sample> ParseSample(std::string_view json, const ColumnMap& columns) {
  EW_ASSIGN(const Value row, text::jinja::ParseJsonValue(json));
  return ParseSample(row, columns);
}

}  // namespace edgewise::data
