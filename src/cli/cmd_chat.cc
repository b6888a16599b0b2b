// edgewise chat MODEL
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/sampling_options.h"
#include "infer/load_tokenizer.h"

namespace edgewise::cli {
namespace {

class Chat : public Command {
 public:
  std::string name() const override { return "chat"; }
  std::string summary() const override { return "Talk with a model"; }

  void Declare(CLI::App& app) override {
    DeclareModel(app, model_);
    DeclareMemory(app, model_);
    app.add_option("--system", system_, "System message");
    app.add_option("-p,--prompt", prompt_, "One message; answer it and stop");
    app.add_option(
           "-c,--ctx", model_.max_context,
           "Context length (default: the model's limit, or what --memory has room for; with "
           "--prompt: this and --max-tokens)")
        ->check(CLI::NonNegativeNumber);
    DeclareCache(app, model_);
    DeclareSampling(app, sampling_);
  }

  Status Run(Invocation& inv) override {
    if (!system_.empty()) messages_.push_back(text::ChatMessage("system", system_));
    if (!prompt_.empty()) {
      model_.needed_context = [&](infer::Session& session) -> Result<int64_t> {
        EW_ASSIGN(const text::ChatTemplate chat,
                  infer::LoadChatTemplate(session.location(), session.tokenizer()));
        EW_ASSIGN(const std::vector<int32_t> ids, Ask(session, chat, prompt_));
        messages_.pop_back();
        return ContextFor(ids, sampling_);
      };
    }
    EW_ASSIGN(auto session, OpenSession(inv, model_));
    EW_ASSIGN(const text::ChatTemplate chat,
              infer::LoadChatTemplate(session->location(), session->tokenizer()));
    Console& console = inv.console();
    if (!chat.warning().empty()) console.Log("note: " + chat.warning());
    if (!prompt_.empty()) return Turn(inv, *session, chat, prompt_, /*single=*/true);
    if (console.json()) {
      return InvalidArgument("--json needs the message on the command line (--prompt)");
    }

    const bool terminal = isatty(STDIN_FILENO) == 1;
    if (terminal) console.Log("Enter a message; an empty line or Ctrl-D ends the chat.");
    std::string line;
    while (!inv.stop().load()) {
      if (terminal) WriteStderr("> ");
      if (!std::getline(std::cin, line) || line.empty()) break;
      EW_RETURN_IF_ERROR(Turn(inv, *session, chat, line, /*single=*/false));
    }
    return Status::Ok();
  }

 private:
  // Adds a message of the user; the tokens of the whole conversation.
  Result<std::vector<int32_t>> Ask(const infer::Session& session, const text::ChatTemplate& chat,
                                   const std::string& message) {
    messages_.push_back(text::ChatMessage("user", message));
    text::ChatRequest request;
    request.messages = text::jinja::Value::List(messages_);
    request.add_generation_prompt = true;
    // What the user types must not become a control token; what the model said before may hold
    // its own (thinking, tools).
    request.guard = text::InputGuard::kNonAssistant;
    EW_ASSIGN(const text::RenderedChat rendered, chat.Render(request));
    EW_ASSIGN(text::Encoding encoding, text::EncodeChat(session.tokenizer(), rendered));
    return std::move(encoding.ids);
  }

  Status Turn(Invocation& inv, infer::Session& session, const text::ChatTemplate& chat,
              const std::string& message, bool single) {
    EW_ASSIGN(const std::vector<int32_t> ids, Ask(session, chat, message));
    infer::GenerateOptions options = MakeGenerateOptions(sampling_, session.defaults());
    options.cancel = &inv.stop();
    Console& console = inv.console();
    EW_ASSIGN(const infer::Generation out,
              session.Generate(ids, options,
                               [&](std::string_view piece) { return console.Text(piece); }));
    console.Text("\n");
    messages_.push_back(text::ChatMessage("assistant", out.text));
    if (single) {
      OrderedJson json;
      json["text"] = out.text;
      json["ids"] = out.ids;
      json["tokens_per_second"] = out.tokens_per_second;
      json["finish_reason"] = out.finish;
      json["prompt_tokens"] = out.prompt_tokens;
      json["seed"] = options.sampling.seed;
      console.SetResult(std::move(json));
    }
    return Status::Ok();
  }

  ModelOptions model_;
  SamplingFlags sampling_;
  std::string system_, prompt_;
  std::vector<text::jinja::Value> messages_;
};

}  // namespace

std::unique_ptr<Command> MakeChat() { return std::make_unique<Chat>(); }

}  // namespace edgewise::cli
