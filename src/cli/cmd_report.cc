// edgewise report RUN [-o FILE]
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/commands.h"
#include "cli/report_samples.h"
#include "io/env.h"
#include "report/json_path.h"
#include "report/run_report.h"

namespace edgewise::cli {
namespace {

class Report : public Command {
 public:
  std::string name() const override { return "report"; }
  std::string summary() const override { return "A run as one HTML page with charts"; }

  void Declare(CLI::App& app) override {
    app.add_option("run", run_, "Run directory of 'edgewise tune'");
    app.add_option("-o,--output", out_, "The page (default: report.html in the run directory)");
    app.add_option("--before", before_, "What 'edgewise eval --json' said of the base");
    app.add_option("--after", after_, "What 'edgewise eval --json' said of the run");
    app.add_option("--sensitivity", sensitivity_,
                   "Table of 'edgewise profile' (default: the one beside the base)");
    app.add_option("--plan", plan_, "What 'edgewise plan --json' said");
    app.add_option("--compare", compare_,
                   "Another run to hold this one against: RUN, NAME=RUN, or NAME=RUN,EVAL.json "
                   "with what 'edgewise eval --json' said of it; may be given again")
        ->allow_extra_args(false);
    app.add_option("--data", data_, "Let base and run answer rows of this file or directory");
    app.add_option("--samples", samples_, "How many rows of --data")
        ->check(CLI::Range(1, 50))
        ->capture_default_str();
    app.add_option("--picture", picture_, "Also write a small SVG of the result, for a document");
    app.add_option("--max-tokens", max_tokens_, "Longest of these answers")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
  }

  Status Run(Invocation& inv) override {
    if (run_.empty()) return InvalidArgument("no RUN is named");
    Env& env = PosixEnv();
    EW_ASSIGN(report::RunReport report, report::ReadRun(env, run_));
    const struct {
      const std::string& path;
      Json& json;
      const char* key;  // without it there is nothing to show
      const char* command;
    } files[] = {{before_, report.before, nullptr, "eval --json"},
                 {after_, report.after, nullptr, "eval --json"},
                 {sensitivity_, report.sensitivity, "layers", "profile -o"},
                 {plan_, report.plan, "predicted_seconds", "plan -o"}};
    for (const auto& file : files) {
      if (file.path.empty()) continue;
      EW_ASSIGN(file.json, ReadJsonFile(file.path));
      if (!file.json.is_object() || (file.key != nullptr && !file.json.contains(file.key))) {
        return BadInput(fmt::format("{}: not what 'edgewise {}' writes", file.path, file.command));
      }
    }
    for (const std::string& other : compare_) {
      EW_ASSIGN(report::RunReport::Other o, ReadOther(other));
      report.others.push_back(std::move(o));
    }
    if (!data_.empty()) {
      EW_RETURN_IF_ERROR(AddSamples(inv, &report));
    }
    const std::string path = out_.empty() ? JoinPath(run_, "report.html") : out_;
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, path, report::RenderReport(report)));
    if (!picture_.empty()) {
      EW_RETURN_IF_ERROR(WriteFileAtomic(env, picture_, report::RenderPicture(report)));
    }
    OrderedJson json;
    json["report"] = path;
    inv.console().SetResult(std::move(json), path + "\n");
    return Status::Ok();
  }

 private:
  static Result<report::RunReport::Other> ReadOther(const std::string& text) {
    report::RunReport::Other out;
    const size_t equals = text.find('=');
    std::string path = equals == std::string::npos ? text : text.substr(equals + 1);
    std::string score;
    if (const size_t comma = path.find(','); comma != std::string::npos) {
      score = path.substr(comma + 1);
      path.resize(comma);
    }
    out.name = equals == std::string::npos ? BaseName(path) : text.substr(0, equals);
    EW_ASSIGN(out.run, ReadJsonFile(JoinPath(path, "edgewise.json")));
    if (!score.empty()) {
      EW_ASSIGN(out.score, ReadJsonFile(score));
    }
    return out;
  }

  // The answers are kept beside the run, so that the page can be made again without the model.
  Status AddSamples(Invocation& inv, report::RunReport* report) const {
    SampleRequest request;
    request.model = report::TextAt(report->run, {"base", "path"});
    if (request.model.empty()) return BadInput(run_ + "/edgewise.json names no base model");
    request.run = run_;
    request.data = data_;
    request.count = samples_;
    request.max_tokens = max_tokens_;
    EW_ASSIGN(report->samples, MakeSamples(inv, request));
    return WriteFileAtomic(PosixEnv(), JoinPath(run_, report::kSamplesName),
                           DumpJson(report::SamplesToJson(report->samples), 1) + "\n");
  }

  std::string run_, out_, before_, after_, sensitivity_, plan_, data_, picture_;
  std::vector<std::string> compare_;
  int64_t samples_ = 8, max_tokens_ = 64;
};

}  // namespace

std::unique_ptr<Command> MakeReport() { return std::make_unique<Report>(); }

}  // namespace edgewise::cli
