// edgewise eval MODEL --data FILE --protocol P | --task FILE|mmlu
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "cli/commands.h"
#include "cli/counter_line.h"
#include "cli/data_options.h"
#include "cli/exits_json.h"
#include "cli/model_options.h"
#include "eval/dataset.h"
#include "eval/exits.h"
#include "eval/multiple_choice.h"
#include "eval/perplexity.h"
#include "io/env.h"
#include "report/table.h"

namespace edgewise::cli {
namespace {

class Eval : public Command {
 public:
  std::string name() const override { return "eval"; }
  std::string summary() const override { return "Perplexity, loss and task accuracy"; }

  void Declare(CLI::App& app) override {
    DeclareModel(app, model_);
    DeclareCache(app, model_);
    DeclareMemory(app, model_);
    app.add_option("--data", data_, "Text or JSONL file; with --task mmlu: its archive or folder");
    app.add_option("--protocol", protocol_, "Perplexity as defined by: fixed, lm-eval, llama.cpp");
    app.add_option("--task", task_,
                   "'mmlu', a file with multiple-choice questions, or with --data: "
                   "'exact-match' (generated answers), 'labels' (likeliest answer)");
    app.add_option("-c,--ctx", ctx_, "Tokens of one input (default: by protocol)")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--limit-tokens", limit_tokens_, "Only so many first tokens of the text")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--chunks", limit_chunks_, "Only so many first chunks")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--limit", limit_, "Only so many first documents, examples or questions")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--shots", shots_, "MMLU: examples before each question")
        ->check(CLI::Range(0, 5))
        ->capture_default_str();
    app.add_option("--split", split_, "Of MMLU and of files with several splits: test, val, ...")
        ->capture_default_str();
    app.add_option("--max-tokens", max_tokens_, "exact-match: longest answer")
        ->check(CLI::NonNegativeNumber);
    DeclareData(app, data_flags_);
    app.add_option("--delimiter", delimiter_, "Between question and choice (default: a space)");
  }

  Status Run(Invocation& inv) override {
    const bool answers = task_ == "exact-match" || task_ == "labels";
    if (data_.empty() && (task_.empty() || answers)) {
      return InvalidArgument(
          "give --data FILE (with --protocol P for perplexity), or --task FILE|mmlu");
    }
    EW_RETURN_IF_ERROR(NameMemory(inv, answers));
    EW_ASSIGN(auto session, OpenSession(inv, model_));
    if (answers || (task_.empty() && protocol_.empty())) return RunDataset(inv, *session);
    return task_.empty() ? RunPerplexity(inv, *session) : RunTask(inv, *session);
  }

 private:
  // What --memory has to leave room for: answers are decoded or scored with what was decoded
  // before, all else is scored in passes.
  Status NameMemory(Invocation& inv, bool answers) {
    // Text, tokens and what becomes of them, in bytes of a byte of the file.
    constexpr int64_t kHeldOfData = 8;
    const std::string& file = data_.empty() ? task_ : data_;
    const Result<int64_t> size = PosixEnv().FileSize(file);
    model_.beside = size.ok() ? kHeldOfData * *size : 0;
    model_.max_context = ctx_;
    model_.decodes = answers || !task_.empty();
    if (answers) {
      model_.needed_context = [this, &inv](infer::Session& session) -> Result<int64_t> {
        EW_RETURN_IF_ERROR(ReadExamples(inv, session));
        return task_ == "labels" ? eval::ContextForLabels(set_->examples, AnswerOptions())
                                 : eval::ContextForAnswers(set_->examples, AnswerOptions());
      };
    } else if (model_.decodes && !model_.memory.empty()) {
      // Tokenising every question twice is worth it only where memory is counted.
      model_.needed_context = [this](infer::Session& session) -> Result<int64_t> {
        EW_RETURN_IF_ERROR(ReadQuestions());
        return eval::ContextForQuestions(session.tokenizer(), *questions_, QuestionOptions());
      };
    }
    if (model_.decodes) return Status::Ok();
    if (protocol_.empty()) {
      model_.scored = [this](const model::ModelConfig& c) {
        return std::max<int64_t>(512, MaxLength(data_flags_, c.max_positions));
      };
      return Status::Ok();
    }
    EW_ASSIGN(const eval::Protocol protocol, eval::ParseProtocol(protocol_));
    model_.scored = [this, protocol](const model::ModelConfig& c) {
      return ctx_ > 0 ? std::min(ctx_, c.max_positions)
                      : eval::DefaultContext(protocol, c.max_positions);
    };
    return Status::Ok();
  }

  Status RunPerplexity(Invocation& inv, infer::Session& session) {
    eval::PerplexityOptions options;
    EW_ASSIGN(options.protocol, eval::ParseProtocol(protocol_));
    options.ctx = ctx_;
    options.limit_tokens = limit_tokens_;
    options.limit_chunks = limit_chunks_;
    options.limit_documents = limit_;
    options.cancel = &inv.stop();
    Result<eval::PerplexityResult> r = [&] {
      CounterLine line(inv.console(), "perplexity", "so far");
      options.progress = [&](int64_t done, int64_t total, double ppl) {
        line.Update(done, total, ppl);
      };
      return eval::Perplexity(session, data_, options);
    }();
    if (!r.ok()) return r.status();
    OrderedJson json;
    json["protocol"] = ProtocolName(r->protocol);
    json["ctx"] = r->ctx;
    json["tokens"] = r->tokens;
    json["nll"] = r->nll;
    json["perplexity"] = r->perplexity;
    json["chunks"] = r->chunks;
    if (r->protocol == eval::Protocol::kLlamaCpp) json["uncertainty"] = r->uncertainty;
    if (r->protocol == eval::Protocol::kLmEval) {
      json["documents"] = r->documents;
      json["words"] = r->words;
      json["word_perplexity"] = r->perplexity;
      json["word_perplexity_full_context"] = r->full_context_perplexity;
      json["byte_perplexity"] = r->byte_perplexity;
      json["bits_per_byte"] = r->bits_per_byte;
    }
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  Status ReadExamples(Invocation& inv, infer::Session& session) {
    EW_ASSIGN(auto pipeline,
              DataPipeline::Create(session.location(), session.tokenizer(), data_flags_,
                                   session.model().config().max_positions));
    if (!pipeline->warning().empty()) inv.console().Log("note: " + pipeline->warning());
    EW_ASSIGN(set_, data::LoadDataset(data_, pipeline->masker(), pipeline->OptionsFor(split_)));
    inv.console().Log(report::WrapLines(data::Describe(set_->report), 2));
    return Status::Ok();
  }

  eval::DatasetOptions AnswerOptions() const {
    eval::DatasetOptions options;
    options.limit = limit_;
    options.max_tokens = max_tokens_;
    return options;
  }

  // Loss with the masks of training, or answers that are right.
  Status RunDataset(Invocation& inv, infer::Session& session) {
    if (!data_.ends_with(".jsonl") && !data_.ends_with(".json") && task_.empty()) {
      return InvalidArgument(
          "perplexity of a text needs its protocol: --protocol fixed, lm-eval or llama.cpp");
    }
    if (!set_) EW_RETURN_IF_ERROR(ReadExamples(inv, session));
    const std::vector<data::Example>& examples = set_->examples;
    eval::DatasetOptions options = AnswerOptions();
    options.cancel = &inv.stop();
    CounterLine line(inv.console(), "examples", task_.empty() ? "loss" : "accuracy");
    options.progress = [&](int64_t done, int64_t total, double figure) {
      line.Update(done, total, figure);
    };
    OrderedJson json;
    if (task_.empty() && session.exits() != nullptr) {
      EW_ASSIGN(const eval::ExitsOnDataset r, eval::ScoreExits(session, examples, options));
      const infer::RuleScore& chosen = r.scores[r.chosen];
      json["loss"] = chosen.nll;
      json["nll"] = chosen.nll;
      json["perplexity"] = std::exp(chosen.nll);
      json["tokens"] = r.tokens;
      json["token_accuracy"] = chosen.accuracy;
      json["exits"] = ExitsJson(*session.exits(), r.scores);
      json["best_exit"] = r.best_exit;
      json["vote"] = VoteJson(session.voter()->policy(), r.scores, r.gain, r.tokens);
      if (!r.early_stop.empty()) {
        json["early_stop"] = EarlyStopJson(*session.exits(), r.early_stop);
      }
    } else if (task_.empty()) {
      EW_ASSIGN(const eval::DatasetLoss loss, eval::LossOnDataset(session, examples, options));
      json["loss"] = loss.nll;
      json["nll"] = loss.nll;
      json["perplexity"] = std::exp(loss.nll);
      json["tokens"] = loss.tokens;
      json["all_tokens"] = loss.all_tokens;
      json["examples"] = loss.examples;
      json["token_accuracy"] = loss.accuracy;
    } else {
      EW_ASSIGN(const eval::AnswerScore score,
                task_ == "labels" ? eval::MatchLabels(session, examples, examples, options)
                                  : eval::ExactMatch(session, examples, options));
      json["accuracy"] = score.score.accuracy();
      json["stderr"] = score.standard_error;
      json["n"] = score.score.n;
      json["task"] = task_;
      if (score.decode_seconds > 0) {
        json["tokens_per_second"] =
            static_cast<double>(score.decoded_tokens) / score.decode_seconds;
      }
      if (score.decided.size() > 1) json["decided"] = SharesJson(score.decided);
      json["misses"] = OrderedJson::array();
      for (const auto& miss : score.misses) {
        json["misses"].push_back(
            {{"prompt", miss.prompt}, {"wanted", miss.wanted}, {"given", miss.given}});
      }
    }
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  // --data, else where the data sets of the tests lie.
  std::string MmluPath() const {
    if (!data_.empty()) return data_;
    const char* root = std::getenv("EDGEWISE_DATA");
    return JoinPath(root != nullptr && *root != '\0' ? root : "../shared/data", "datasets/mmlu");
  }

  Status ReadQuestions() {
    if (task_ == "mmlu") {
      EW_ASSIGN(questions_, eval::ReadMmlu(MmluPath(), shots_, split_));
    } else {
      EW_ASSIGN(questions_, eval::ReadQuestions(task_, delimiter_));
    }
    return Status::Ok();
  }

  eval::ChoiceOptions QuestionOptions() const {
    eval::ChoiceOptions options;
    options.limit = limit_;
    options.ctx = ctx_;
    return options;
  }

  Status RunTask(Invocation& inv, infer::Session& session) {
    if (!questions_) EW_RETURN_IF_ERROR(ReadQuestions());
    eval::ChoiceOptions options = QuestionOptions();
    options.cancel = &inv.stop();
    Result<eval::ChoiceResult> r = [&] {
      CounterLine line(inv.console(), "questions", "accuracy");
      options.progress = [&](int64_t done, int64_t total, double accuracy) {
        line.Update(done, total, accuracy);
      };
      return eval::ScoreQuestions(session, *questions_, options);
    }();
    if (!r.ok()) return r.status();
    OrderedJson json;
    json["accuracy"] = r->all.accuracy();
    json["stderr"] = r->standard_error;
    json["n"] = r->all.n;
    json["task"] = task_;
    json["accuracy_norm"] = r->normalized.accuracy();
    json["accuracy_macro"] = r->macro_accuracy;
    json["truncated"] = r->truncated;
    if (task_ == "mmlu") json["shots"] = shots_;
    if (r->truncated > 0) {
      inv.console().Log(fmt::format(
          "note: {} of {} questions were longer than the context and lost their beginning",
          r->truncated, r->all.n));
    }
    OrderedJson groups = OrderedJson::object();
    for (const auto& [name, score] : r->groups) {
      if (!name.empty()) groups[name] = {{"accuracy", score.accuracy()}, {"n", score.n}};
    }
    if (!groups.empty()) json["groups"] = std::move(groups);
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  ModelOptions model_;
  std::string data_, protocol_, task_, split_ = "test", delimiter_ = " ";
  int64_t ctx_ = 0, limit_tokens_ = 0, limit_chunks_ = 0, limit_ = 0;
  int64_t max_tokens_ = 0;
  DataFlags data_flags_;
  int shots_ = 5;
  // Once they are read.
  std::optional<data::Dataset> set_;
  std::optional<std::vector<eval::Question>> questions_;
};

}  // namespace

std::unique_ptr<Command> MakeEval() { return std::make_unique<Eval>(); }

}  // namespace edgewise::cli
