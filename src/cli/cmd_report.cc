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
    EW_ASSIGN(report.before, ReadScore(before_));
    EW_ASSIGN(report.after, ReadScore(after_));
    if (!before_.empty() && !after_.empty()) {
      EW_RETURN_IF_ERROR(CheckScores(report.before, report.after));
    }
    EW_ASSIGN(report.plan, ReadFile(plan_, "predicted_seconds", "plan -o"));
    if (!sensitivity_.empty()) {  // else the one beside the base
      EW_ASSIGN(report.sensitivity, ReadFile(sensitivity_, "layers", "profile -o"));
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
  static Status OfAnotherKind(const std::string& path, const char* command) {
    return BadInput(fmt::format("{}: not what 'edgewise {}' writes", path, command));
  }

  // What a command wrote; null where no path is given. Without the key there is nothing to show.
  static Result<Json> ReadFile(const std::string& path, const char* key, const char* command) {
    if (path.empty()) return Json();
    EW_ASSIGN(Json json, ReadJsonFile(path));
    if (!json.is_object() || !json.contains(key)) return OfAnotherKind(path, command);
    return json;
  }

  static Result<Json> ReadScore(const std::string& path) {
    if (path.empty()) return Json();
    EW_ASSIGN(Json json, ReadJsonFile(path));
    if (report::ScoreKey(json) == nullptr) return OfAnotherKind(path, "eval --json");
    return json;
  }

  // The two are shown by the same figure.
  Status CheckScores(const Json& before, const Json& after) const {
    const char* key = report::ScoreKey(after);
    return before.contains(key)
               ? Status::Ok()
               : InvalidArgument(fmt::format(
                     "{} measured the {} and {} did not: give what the same 'edgewise eval' said "
                     "of both",
                     after_, key, before_));
  }

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
    EW_ASSIGN(out.score, ReadScore(score));
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
