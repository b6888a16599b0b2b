#include "cli/report_samples.h"

#include <algorithm>

#include "data/dataset.h"
#include "data/reader.h"
#include "eval/dataset.h"
#include "infer/session.h"
#include "io/env.h"

namespace edgewise::cli {
namespace {

std::string Strip(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

// What the user said last before the answer; "" for rows that are no chat.
std::string LastQuestion(const data::Sample& sample) {
  if (!sample.messages.is_sequence() || sample.learned.empty() || sample.learned.back() == 0)
    return "";
  const auto& messages = sample.messages.items();
  const size_t index = sample.learned.back() - 1;
  if (index >= messages.size() || !messages[index].is_dict()) return "";
  const text::jinja::Value* content = messages[index].dict().Find("content");
  return content != nullptr && content->is_string() ? std::string(content->str()) : "";
}

struct Question {
  std::string shown;
  eval::Answer answer;
};

Result<std::string> DataFile(const std::string& data) {
  if (!PosixEnv().IsDirectory(data)) return data;
  EW_ASSIGN(const data::DataFiles files, data::FindDataFiles(data));
  for (const std::string& file : {files.test, files.valid, files.train}) {
    if (!file.empty()) return file;
  }
  return NotFound(data + ": there is no data file");
}

Result<std::vector<Question>> ReadQuestions(const infer::Session& session,
                                            const SampleRequest& request) {
  DataFlags flags = request.data_flags;
  // Rows without an answer are passed over, so a few more are read.
  flags.max_rows = 4 * request.count + 16;
  EW_ASSIGN(auto pipeline, DataPipeline::Create(session.location(), session.tokenizer(), flags,
                                                session.model().config().max_positions));
  EW_ASSIGN(const std::string path, DataFile(request.data));
  std::vector<Question> out;
  const auto take = [&](data::Sample sample) -> Status {
    if (static_cast<int64_t>(out.size()) == request.count) return Status::Ok();
    EW_ASSIGN(const data::MaskedSample masked, pipeline->masker().Mask(sample));
    auto answer = eval::LastAnswer(data::MakeExample(masked.ids, masked.mask));
    if (!answer) return Status::Ok();
    if (static_cast<int64_t>(answer->prompt.size()) > pipeline->options().max_length) {
      return Status::Ok();
    }
    std::string shown = LastQuestion(sample);
    if (shown.empty()) shown = session.tokenizer().Decode(answer->prompt, true);
    out.push_back({std::move(shown), std::move(*answer)});
    return Status::Ok();
  };
  EW_RETURN_IF_ERROR(data::ReadSamples(path, pipeline->options().read, take).status());
  return out;
}

Status Answer(Invocation& inv, infer::Session& session, const std::vector<Question>& questions,
              int64_t max_tokens, const std::function<void(size_t, std::string)>& take) {
  infer::GenerateOptions options;
  options.sampling.temperature = 0;
  options.sampling.repetition_penalty = 1;
  options.max_tokens = max_tokens;
  options.cancel = &inv.stop();
  for (size_t i = 0; i < questions.size(); ++i) {
    if (inv.stop().load()) return {StatusCode::kInterrupted, "stopped while answering"};
    EW_ASSIGN(const infer::Generation out, session.Generate(questions[i].answer.prompt, options));
    take(i, Strip(out.text));
  }
  return Status::Ok();
}

}  // namespace

Result<std::vector<report::ReportSample>> MakeSamples(Invocation& inv,
                                                      const SampleRequest& request) {
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  std::vector<Question> questions;
  std::vector<report::ReportSample> samples;
  {
    EW_ASSIGN(auto session, infer::Session::Open(*exec, request.model));
    EW_ASSIGN(questions, ReadQuestions(*session, request));
    for (const Question& q : questions) {
      samples.push_back({q.shown, Strip(session->tokenizer().Decode(q.answer.gold, true)), "", "",
                         request.trained});
    }
    EW_RETURN_IF_ERROR(
        Answer(inv, *session, questions, request.max_tokens,
               [&](size_t i, std::string text) { samples[i].before = std::move(text); }));
  }
  infer::SessionOptions tuned;
  tuned.adapter = request.run;
  EW_ASSIGN(auto session, infer::Session::Open(*exec, request.model, tuned));
  EW_RETURN_IF_ERROR(
      Answer(inv, *session, questions, request.max_tokens,
             [&](size_t i, std::string text) { samples[i].after = std::move(text); }));
  return samples;
}

Result<std::string> WriteRunReport(Invocation& inv, const SampleRequest& request) {
  Env& env = PosixEnv();
  EW_ASSIGN(report::RunReport report, report::ReadRun(env, request.run));
  if (request.count > 0) {
    EW_ASSIGN(report.samples, MakeSamples(inv, request));
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, JoinPath(request.run, report::kSamplesName),
                                       DumpJson(report::SamplesToJson(report.samples), 1) + "\n"));
  }
  const std::string path = JoinPath(request.run, "report.html");
  EW_RETURN_IF_ERROR(WriteFileAtomic(env, path, report::RenderReport(report)));
  return path;
}

}  // namespace edgewise::cli
