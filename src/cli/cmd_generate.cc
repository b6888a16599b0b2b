// edgewise generate MODEL --prompt T
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/exits_json.h"
#include "cli/model_options.h"
#include "cli/sampling_options.h"
#include "io/env.h"

namespace edgewise::cli {
namespace {

constexpr int64_t kMaxPromptBytes = int64_t{64} << 20;

class Generate : public Command {
 public:
  std::string name() const override { return "generate"; }
  std::string summary() const override { return "Continue a text"; }

  void Declare(CLI::App& app) override {
    DeclareModel(app, model_);
    DeclareMemory(app, model_);
    app.add_option("-p,--prompt", prompt_, "The text to continue");
    app.add_option("-f,--prompt-file", prompt_file_, "Read the prompt from a file");
    app.add_flag("--no-special", no_special_, "Do not add what the tokenizer puts before a text");
    app.add_option("-c,--ctx", model_.max_context,
                   "Context length (default: the prompt and --max-tokens)")
        ->check(CLI::NonNegativeNumber);
    DeclareCache(app, model_);
    DeclareSampling(app, sampling_);
  }

  Status Run(Invocation& inv) override {
    if (prompt_.has_value() == !prompt_file_.empty()) {
      return InvalidArgument("give the prompt with either --prompt or --prompt-file");
    }
    std::string prompt = prompt_.value_or("");
    if (!prompt_file_.empty()) {
      EW_ASSIGN(prompt, PosixEnv().ReadFile(prompt_file_, kMaxPromptBytes));
    }
    std::vector<int32_t> ids;
    model_.needed_context = [&](infer::Session& session) -> Result<int64_t> {
      EW_ASSIGN(ids, Encode(session.tokenizer(), prompt));
      return ContextFor(ids, sampling_);
    };
    EW_ASSIGN(auto session, OpenSession(inv, model_));
    if (model_.max_context > 0) {
      EW_ASSIGN(ids, Encode(session->tokenizer(), prompt));
    }

    infer::GenerateOptions options = MakeGenerateOptions(sampling_, session->defaults());
    options.cancel = &inv.stop();
    Console& console = inv.console();
    EW_ASSIGN(const infer::Generation out,
              session->Generate(ids, options,
                                [&](std::string_view piece) { return console.Text(piece); }));
    console.Text("\n");
    console.Log(fmt::format("{} prompt tokens in {:.2f} s, {} tokens, {:.1f} tok/s, ended by {}",
                            out.prompt_tokens, out.prefill_seconds, out.ids.size(),
                            out.tokens_per_second, out.finish));
    OrderedJson json;
    json["text"] = out.text;
    json["ids"] = out.ids;
    json["tokens_per_second"] = out.tokens_per_second;
    if (out.decided.size() > 1) json["decided"] = SharesJson(out.decided);
    json["finish_reason"] = out.finish;
    json["prompt_tokens"] = out.prompt_tokens;
    json["prompt_tokens_per_second"] =
        out.prefill_seconds > 0 ? static_cast<double>(out.prompt_tokens) / out.prefill_seconds : 0;
    json["seed"] = options.sampling.seed;
    console.SetResult(std::move(json));
    if (out.finish == "cancelled" && inv.stop().load()) {
      return {StatusCode::kInterrupted, "interrupted; the text so far was printed"};
    }
    return Status::Ok();
  }

 private:
  // A suffix (such as EOS) ends a text; here the text is to go on.
  Result<std::vector<int32_t>> Encode(const text::Tokenizer& tokenizer,
                                      const std::string& prompt) const {
    EW_ASSIGN(std::vector<int32_t> ids, tokenizer.Encode(prompt, !no_special_));
    if (!no_special_) ids.resize(ids.size() - std::min(ids.size(), tokenizer.suffix_ids().size()));
    return ids;
  }

  ModelOptions model_;
  SamplingFlags sampling_;
  std::optional<std::string> prompt_;
  std::string prompt_file_;
  bool no_special_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeGenerate() { return std::make_unique<Generate>(); }

}  // namespace edgewise::cli
