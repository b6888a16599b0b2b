// edgewise tokenize MODEL (--text T | --file F)
#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "formats/hf_dir.h"
#include "infer/load_tokenizer.h"
#include "io/env.h"
#include "report/table.h"

namespace edgewise::cli {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

class Tokenize : public Command {
 public:
  std::string name() const override { return "tokenize"; }
  std::string summary() const override { return "Show the tokens of a text"; }

  void Declare(CLI::App& app) override {
    app.add_option("model,-m,--model", model_, "Hugging Face directory, GGUF file or hub id");
    app.add_option("--text", text_, "The text");
    app.add_option("--file", file_, "Read the text from a file");
    app.add_flag("--no-special", no_special_,
                 "Do not add what the tokenizer puts around a text (such as BOS)");
    app.add_flag("--no-control", no_control_,
                 "Read control tokens that are spelt out in the text as plain text");
  }

  Status Run(Invocation& inv) override {
    if (model_.empty()) return InvalidArgument("no MODEL is named");
    if (file_.empty() == !text_.has_value()) {
      return InvalidArgument("give the text with either --text or --file");
    }
    std::string text = text_.value_or("");
    if (!file_.empty()) {
      EW_ASSIGN(text, PosixEnv().ReadFile(file_, kMaxTextBytes));
    }
    EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(model_));
    EW_ASSIGN(const text::Tokenizer tokenizer, infer::LoadTokenizer(location));
    EW_ASSIGN(const text::Encoding encoding,
              tokenizer.EncodeWithSpans(text, {.add_special_tokens = !no_special_,
                                               .parse_control_tokens = !no_control_}));
    OrderedJson json;
    json["ids"] = encoding.ids;
    json["pieces"] = OrderedJson::array();
    report::Table table({"id", "piece"});
    for (int32_t id : encoding.ids) {
      const std::string piece(tokenizer.IdToToken(id).value_or(""));
      json["pieces"].push_back(piece);
      table.AddRow({std::to_string(id), DumpJson(Json(tokenizer.PieceForDisplay(id)))});
    }
    inv.console().SetResult(std::move(json), table.Render());
    return Status::Ok();
  }

 private:
  std::string model_, file_;
  std::optional<std::string> text_;
  bool no_special_ = false, no_control_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeTokenize() { return std::make_unique<Tokenize>(); }

}  // namespace edgewise::cli
