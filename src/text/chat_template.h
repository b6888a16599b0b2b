// Conversations to prompt text by the template that a model brings along, as transformers'
// apply_chat_template does it, and to tokens without letting what users wrote become control
// tokens.
#pragma once

#include <ctime>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/jinja/template.h"
#include "text/tokenizer.h"

namespace edgewise::text {

// The texts that name a model's templates; each may be empty.
struct ChatTemplateFiles {
  std::string tokenizer_config_json;  // its chat_template (a string or a list of {name, template})
  std::string chat_template_jinja;    // overrides that
  std::vector<std::pair<std::string, std::string>> additional;  // name, template
};

// Reads the files of a model directory: tokenizer_config.json, chat_template.jinja (or .json) and
// additional_chat_templates/*.jinja. Absent ones stay empty.
Result<ChatTemplateFiles> ReadChatTemplateFiles(const std::string& directory);

// Which text of a conversation is kept from turning into control tokens.
enum class InputGuard {
  kOff,           // none: as transformers tokenizes
  kNonAssistant,  // all but assistant messages, which may hold tokens such as <think>
  kAll,           // everything in messages, tools and kwargs
};

struct ChatRequest {
  jinja::Value messages;                      // a list of objects with role, content, ...
  jinja::Value tools = jinja::Value::None();  // a list of JSON schemas, or none
  jinja::Value documents = jinja::Value::None();
  bool add_generation_prompt = false;
  // Further variables of the template, such as enable_thinking. Names that the template gets
  // otherwise (messages, bos_token, raise_exception ...) are refused.
  std::vector<std::pair<std::string, jinja::Value>> kwargs;
  InputGuard guard = InputGuard::kAll;
  // What strftime_now() tells; the system's local time when absent. Give one where the same text
  // has to come out tomorrow.
  std::optional<std::tm> now;
};

struct RenderedChat {
  std::string text;
  std::vector<TextSpan> input;      // bytes that the guard covers; ascending, disjoint
  std::vector<TextSpan> generated;  // bytes inside of {% generation %}; ascending, disjoint
};

class ChatTemplate {
 public:
  // Without any template: ChatML, and warning() says so. Errors: a template that does not parse
  // (names it and the line), a malformed tokenizer_config.json.
  static Result<ChatTemplate> Load(const ChatTemplateFiles& files, jinja::JinjaLimits limits = {});
  static Result<ChatTemplate> FromString(std::string_view source, std::string bos_token,
                                         std::string eos_token, jinja::JinjaLimits limits = {});

  // `tool_use` when the request has tools and there is a template of that name, else `default`.
  // Errors: a conversation that the template refuses (its own words), a breach of a limit.
  Result<RenderedChat> Render(const ChatRequest& request) const;

  bool is_fallback() const { return !warning_.empty(); }
  const std::string& warning() const { return warning_; }
  const std::string& bos_token() const { return bos_token_; }
  const std::string& eos_token() const { return eos_token_; }
  // The source of the template that requests without tools use.
  const std::string& source() const { return source_; }

 private:
  struct Named {
    std::string name;
    jinja::Template parsed;
  };
  std::vector<Named> templates_;
  std::vector<std::pair<std::string, jinja::Value>> token_variables_;  // bos_token, ...
  std::string bos_token_, eos_token_, source_, warning_;
};

// The tokens of a rendered conversation: nothing is added, control tokens inside of the guarded
// bytes stay text.
Result<Encoding> EncodeChat(const Tokenizer& tokenizer, const RenderedChat& chat);

// {"role": role, "content": content}
jinja::Value ChatMessage(std::string role, std::string content);

}  // namespace edgewise::text
