#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/env.h"
#include "io/json.h"

namespace edgewise::text {

namespace {

using jinja::Value;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
constexpr size_t kMaxTemplates = 64;

// Written for models without a template of their own.
constexpr std::string_view kChatMl =
    "{% for message in messages %}"
    "{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// Roles are part of control tokens in some templates ('<|' + role + '|>'); these are harmless.
constexpr std::string_view kRoles[] = {
    "system", "user",     "assistant",    "tool",     "developer",     "function",
    "model",  "observer", "tool_results", "ipython",  "tool_response", "tool_call",
    "human",  "gpt",      "observation",  "document", "function_call"};

// Variables that only the program sets.
constexpr std::string_view kReserved[] = {"messages",
                                          "tools",
                                          "add_generation_prompt",
                                          "raise_exception",
                                          "strftime_now",
                                          "range",
                                          "dict",
                                          "namespace",
                                          "cycler",
                                          "joiner",
                                          "loop",
                                          "self",
                                          "tokenize",
                                          "chat_template"};

constexpr const char* kTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

bool Contains(std::span<const std::string_view> set, std::string_view name) {
  return std::find(set.begin(), set.end(), name) != set.end();
}

bool IsIdentifier(std::string_view name) {
  if (name.empty() || name.size() > 64 || (name[0] >= '0' && name[0] <= '9')) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  });
}

// Messages as transformers hands them to the template (reasoning_content is also there as
// thinking, and the other way round), marked as the guard asks.
Result<Value> PrepareMessages(const Value& messages, InputGuard guard) {
  if (!messages.is_sequence()) {
    return InvalidArgument(
        fmt::format("messages must be a list, not {}", jinja::TypeName(messages)));
  }
  std::vector<Value> out;
  out.reserve(messages.items().size());
  for (size_t i = 0; i < messages.items().size(); ++i) {
    const Value& message = messages.items()[i];
    if (!message.is_dict()) {
      return InvalidArgument(
          fmt::format("message {} must be an object with role and content, not "
                      "{}",
                      i, jinja::TypeName(message)));
    }
    const Value* role = message.dict().Find("role");
    const bool assistant = role != nullptr && role->is_string() && role->str() == "assistant";
    const bool mark =
        guard == InputGuard::kAll || (guard == InputGuard::kNonAssistant && !assistant);
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [key, value] : message.dict().entries()) {
      const bool is_role = key.is_string() && key.str() == "role" && value.is_string() &&
                           Contains(kRoles, value.str());
      entries.emplace_back(key,
                           mark && !is_role ? jinja::WithMarks(value, jinja::kMarkInput) : value);
    }
    const Value prepared = Value::MakeDict(entries);
    const Value* reasoning = prepared.dict().Find("reasoning_content");
    const Value* thinking = prepared.dict().Find("thinking");
    if (reasoning != nullptr && thinking == nullptr) {
      entries.emplace_back(Value::String("thinking"), *reasoning);
    } else if (thinking != nullptr && reasoning == nullptr) {
      entries.emplace_back(Value::String("reasoning_content"), *thinking);
    }
    out.push_back(Value::MakeDict(std::move(entries)));
  }
  return Value::List(std::move(out));
}

std::vector<TextSpan> SpansOf(const jinja::MarkedText& text, uint8_t mark) {
  std::vector<TextSpan> spans;
  for (const jinja::TextRun& run : text.runs) {
    if ((run.marks & mark) == 0) continue;
    if (!spans.empty() && spans.back().end == run.begin) {
      spans.back().end = run.end;
    } else {
      spans.push_back({run.begin, run.end});
    }
  }
  return spans;
}

// A token of tokenizer_config.json: a string or {"content": ...}.
std::optional<std::string> TokenText(const Json& config, const char* name) {
  const auto it = config.find(name);
  if (it == config.end()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (it->is_object() && it->contains("content") && (*it)["content"].is_string()) {
    return (*it)["content"].get<std::string>();
  }
  return std::nullopt;
}

// Name and source of the templates that tokenizer_config.json holds.
Status CollectFromConfig(const Json& config,
                         std::vector<std::pair<std::string, std::string>>* sources) {
  const auto it = config.find("chat_template");
  if (it == config.end() || it->is_null()) return Status::Ok();
  if (it->is_string()) {
    sources->emplace_back("default", it->get<std::string>());
    return Status::Ok();
  }
  if (!it->is_array()) {
    return BadInput("tokenizer_config.json: chat_template must be a string or a list");
  }
  for (const Json& entry : *it) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() ||
        !entry.contains("template") || !entry["template"].is_string()) {
      return BadInput("tokenizer_config.json: each chat_template needs a name and a template");
    }
    sources->emplace_back(entry["name"].get<std::string>(), entry["template"].get<std::string>());
  }
  return Status::Ok();
}

std::tm LocalNow() {
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  return now;
}

}  // namespace

Result<ChatTemplateFiles> ReadChatTemplateFiles(const std::string& directory) {
  Env& env = PosixEnv();
  ChatTemplateFiles files;
  const auto read = [&](const std::string& path, std::string* text) -> Status {
    if (!env.Exists(path)) return Status::Ok();
    EW_ASSIGN(*text, env.ReadFile(path, kMaxConfigBytes));
    return Status::Ok();
  };
  EW_RETURN_IF_ERROR(
      read(JoinPath(directory, "tokenizer_config.json"), &files.tokenizer_config_json));
  EW_RETURN_IF_ERROR(read(JoinPath(directory, "chat_template.jinja"), &files.chat_template_jinja));
  std::string as_json;
  EW_RETURN_IF_ERROR(read(JoinPath(directory, "chat_template.json"), &as_json));
  if (files.chat_template_jinja.empty() && !as_json.empty()) {
    EW_ASSIGN(const Json parsed,
              ParseJson(as_json).WithContext(JoinPath(directory, "chat_template.json")));
    if (parsed.is_object() && parsed.contains("chat_template") &&
        parsed["chat_template"].is_string()) {
      files.chat_template_jinja = parsed["chat_template"].get<std::string>();
    }
  }
  const std::string more = JoinPath(directory, "additional_chat_templates");
  if (env.IsDirectory(more)) {
    EW_ASSIGN(const std::vector<std::string> names, env.ListDir(more));
    for (const std::string& name : names) {
      constexpr std::string_view kSuffix = ".jinja";
      if (!name.ends_with(kSuffix) || files.additional.size() >= kMaxTemplates) continue;
      std::string text;
      EW_RETURN_IF_ERROR(read(JoinPath(more, name), &text));
      files.additional.emplace_back(name.substr(0, name.size() - kSuffix.size()), std::move(text));
    }
  }
  return files;
}

Result<ChatTemplate> ChatTemplate::Load(const ChatTemplateFiles& files, jinja::JinjaLimits limits) {
  ChatTemplate out;
  // A later source of the same name takes the place of an earlier one.
  std::vector<std::pair<std::string, std::string>> sources;
  if (!files.tokenizer_config_json.empty()) {
    EW_ASSIGN(const Json config,
              ParseJson(files.tokenizer_config_json).WithContext("tokenizer_config.json"));
    if (!config.is_object()) return BadInput("tokenizer_config.json: not an object");
    EW_RETURN_IF_ERROR(CollectFromConfig(config, &sources));
    for (const char* name : kTokenNames) {
      const std::optional<std::string> token = TokenText(config, name);
      if (!token) continue;
      out.token_variables_.emplace_back(name, Value::String(*token));
      if (std::string_view(name) == "bos_token") out.bos_token_ = *token;
      if (std::string_view(name) == "eos_token") out.eos_token_ = *token;
    }
  }
  if (!files.chat_template_jinja.empty()) {
    sources.emplace_back("default", files.chat_template_jinja);
  }
  for (const auto& source : files.additional) sources.push_back(source);
  if (sources.size() > kMaxTemplates) return BadInput("more than 64 chat templates");
  const bool has_default = std::any_of(sources.begin(), sources.end(),
                                       [](const auto& s) { return s.first == "default"; });
  if (!has_default) {
    out.warning_ = sources.empty()
                       ? "the model has no chat template: using ChatML"
                       : "the model has no default chat template: using ChatML without tools";
    sources.emplace_back("default", std::string(kChatMl));
  }
  for (const auto& [name, source] : sources) {
    EW_ASSIGN(jinja::Template parsed,
              jinja::Template::Parse(source, limits)
                  .WithContext(fmt::format("chat template '{}'", name.substr(0, 80))));
    if (name == "default") out.source_ = source;
    const auto same = std::find_if(out.templates_.begin(), out.templates_.end(),
                                   [&n = name](const Named& t) { return t.name == n; });
    if (same != out.templates_.end()) {
      same->parsed = std::move(parsed);
    } else {
      out.templates_.push_back({name, std::move(parsed)});
    }
  }
  return out;
}

Result<ChatTemplate> ChatTemplate::FromString(std::string_view source, std::string bos_token,
                                              std::string eos_token, jinja::JinjaLimits limits) {
  ChatTemplate out;
  EW_ASSIGN(jinja::Template parsed, jinja::Template::Parse(source, limits));
  out.templates_.push_back({"default", std::move(parsed)});
  out.token_variables_ = {{"bos_token", Value::String(bos_token)},
                          {"eos_token", Value::String(eos_token)}};
  out.bos_token_ = std::move(bos_token);
  out.eos_token_ = std::move(eos_token);
  out.source_ = std::string(source);
  return out;
}

Result<RenderedChat> ChatTemplate::Render(const ChatRequest& request) const {
  const auto guarded = [&](const Value& v) {
    return request.guard == InputGuard::kOff ? v : jinja::WithMarks(v, jinja::kMarkInput);
  };
  EW_ASSIGN(Value messages, PrepareMessages(request.messages, request.guard));
  const bool has_tools = jinja::Truthy(request.tools);
  std::vector<std::pair<std::string, Value>> variables = token_variables_;
  variables.emplace_back("messages", std::move(messages));
  variables.emplace_back("tools", guarded(request.tools));
  variables.emplace_back("documents", guarded(request.documents));
  variables.emplace_back("add_generation_prompt", Value::Bool(request.add_generation_prompt));
  for (const auto& [name, value] : request.kwargs) {
    const bool token = std::any_of(std::begin(kTokenNames), std::end(kTokenNames),
                                   [&n = name](const char* t) { return n == t; });
    if (!IsIdentifier(name) || Contains(kReserved, name) || token) {
      return InvalidArgument(fmt::format(
          "chat template variable '{}' cannot be set: it is reserved or not an identifier",
          name.substr(0, 80)));
    }
    variables.emplace_back(name, guarded(value));
  }
  const Named* chosen = nullptr;
  for (const Named& named : templates_) {
    if (named.name == "default" && chosen == nullptr) chosen = &named;
    if (named.name == "tool_use" && has_tools) chosen = &named;
  }
  if (chosen == nullptr) return Internal("a chat template set without default");
  EW_ASSIGN(jinja::MarkedText text,
            chosen->parsed.Render(variables, request.now ? *request.now : LocalNow()));
  RenderedChat out;
  out.input = SpansOf(text, jinja::kMarkInput);
  out.generated = SpansOf(text, jinja::kMarkGenerated);
  out.text = std::move(text.bytes);
  return out;
}

Result<Encoding> EncodeChat(const Tokenizer& tokenizer, const RenderedChat& chat) {
  return tokenizer.EncodeWithSpans(chat.text, {.add_special_tokens = false, .literal = chat.input});
}

jinja::Value ChatMessage(std::string role, std::string content) {
  return Value::MakeDict({{Value::String("role"), Value::String(std::move(role))},
                          {Value::String("content"), Value::String(std::move(content))}});
}

}  // namespace edgewise::text
