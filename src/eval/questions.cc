// Readers of question files.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "eval/csv.h"
#include "eval/multiple_choice.h"
#include "eval/zip.h"
#include "io/env.h"
#include "io/json.h"

namespace edgewise::eval {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{256} << 20;

const Json* FirstOf(const Json& row, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto it = row.find(key);
    if (it != row.end()) return &*it;
  }
  return nullptr;
}

// An index, a letter (of the choice) or the text of the choice.
std::optional<int> GoldIndex(const Json& answer, const std::vector<std::string>& choices,
                             const std::vector<std::string>& letters) {
  if (answer.is_number_integer()) {
    const auto i = answer.get<int64_t>();
    if (i < 0 || i >= static_cast<int64_t>(choices.size())) return std::nullopt;
    return static_cast<int>(i);
  }
  if (!answer.is_string()) return std::nullopt;
  const auto text = answer.get<std::string>();
  for (const auto* list : {&letters, &choices}) {
    const auto it = std::find(list->begin(), list->end(), text);
    if (it != list->end()) return static_cast<int>(it - list->begin());
  }
  if (text.size() == 1 && text[0] >= '0' && text[0] - '0' < static_cast<int>(choices.size())) {
    return text[0] - '0';
  }
  return std::nullopt;
}

Result<Question> ParseQuestion(const Json& row, const std::string& delimiter) {
  if (!row.is_object()) return BadInput("expected an object");
  const Json* context = FirstOf(row, {"context", "question", "query", "prompt", "ctx"});
  const Json* choices = FirstOf(row, {"choices", "options", "endings"});
  const Json* answer = FirstOf(row, {"answer", "gold", "label", "target", "answerKey"});
  if (context == nullptr || !context->is_string()) {
    return BadInput("no question: expected a string \"context\", \"question\" or \"prompt\"");
  }
  std::vector<std::string> texts, letters;
  const bool lettered = choices != nullptr && choices->is_object();
  if (choices == nullptr || (!choices->is_array() && !lettered)) {
    return BadInput("no choices: expected a list \"choices\", \"options\" or \"endings\"");
  }
  for (const auto& [key, choice] : choices->items()) {
    if (!choice.is_string()) return BadInput("a choice is not a string");
    texts.push_back(choice.get<std::string>());
    letters.push_back(lettered ? key : std::string(1, static_cast<char>('A' + texts.size() - 1)));
    if (texts.size() > 26) return BadInput("more than 26 choices");
  }
  if (texts.size() < 2) return BadInput("fewer than two choices");
  const std::optional<int> gold =
      answer == nullptr ? std::nullopt : GoldIndex(*answer, texts, letters);
  if (!gold) {
    return BadInput("no \"answer\" (or \"gold\", \"label\") that is an index, letter or choice");
  }
  Question question;
  question.context = context->get<std::string>();
  for (const std::string& text : texts) question.continuations.push_back(delimiter + text);
  question.gold = *gold;
  if (const Json* group = FirstOf(row, {"group", "subject", "category"});
      group != nullptr && group->is_string()) {
    question.group = group->get<std::string>();
  }
  return question;
}

// The CSV files of MMLU by "SPLIT/SUBJECT", from an archive or a directory.
using MmluFiles = std::map<std::string, std::string>;

// "data/dev/abstract_algebra_dev.csv" -> "dev/abstract_algebra"; "" when it is something else.
std::string MmluKey(const std::string& path) {
  const std::string file = BaseName(path), split = BaseName(DirName(path));
  const std::string tail = "_" + split + ".csv";
  if (split.empty() || !file.ends_with(tail)) return "";
  return split + "/" + file.substr(0, file.size() - tail.size());
}

Result<MmluFiles> LoadMmluFiles(const std::string& path) {
  MmluFiles files;
  Env& env = PosixEnv();
  if (!env.IsDirectory(path)) {
    EW_ASSIGN(const ZipFile zip, ZipFile::Open(path));
    for (const ZipEntry& entry : zip.entries()) {
      const std::string key = MmluKey(entry.name);
      if (key.empty()) continue;
      EW_ASSIGN(files[key], zip.Read(entry));
    }
    return files;
  }
  for (const char* top : {"", "data"}) {
    const std::string root = *top == '\0' ? path : JoinPath(path, top);
    for (const char* split : {"dev", "val", "test"}) {
      const std::string dir = JoinPath(root, split);
      if (!env.IsDirectory(dir)) continue;
      EW_ASSIGN(const std::vector<std::string> names, env.ListDir(dir));
      for (const std::string& name : names) {
        const std::string file = JoinPath(dir, name);
        const std::string key = MmluKey(file);
        if (key.empty()) continue;
        EW_ASSIGN(files[key], env.ReadFile(file, kMaxFileBytes));
      }
    }
  }
  const std::string zip = JoinPath(path, "mmlu.zip");
  if (files.empty() && env.Exists(zip)) return LoadMmluFiles(zip);
  return files;
}

std::string Strip(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n\v\f");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n\v\f") + 1 - begin);
}

struct MmluRow {
  std::string prompt;  // question and choices, up to "Answer:"
  int gold = 0;
};

Result<std::vector<MmluRow>> ParseMmlu(const std::string& csv, const std::string& name) {
  EW_ASSIGN(const auto rows, ParseCsv(csv).WithContext(name));
  std::vector<MmluRow> out;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& row = rows[i];
    if (row.size() != 6 || row[5].size() != 1 || row[5][0] < 'A' || row[5][0] > 'D') {
      return BadInput(fmt::format("{}: row {}: expected question, four choices and a letter A to D",
                                  name, i + 1));
    }
    out.push_back({fmt::format("{}\nA. {}\nB. {}\nC. {}\nD. {}\nAnswer:", Strip(row[0]), row[1],
                               row[2], row[3], row[4]),
                   row[5][0] - 'A'});
  }
  return out;
}

}  // namespace

Result<std::vector<Question>> ReadQuestions(const std::string& path, const std::string& delimiter) {
  EW_ASSIGN(const std::string text, PosixEnv().ReadFile(path, kMaxFileBytes));
  std::vector<Question> questions;
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '[') {
    EW_ASSIGN(const Json rows,
              ParseJson(text, {.max_bytes = kMaxFileBytes, .max_depth = 64}).WithContext(path));
    for (size_t i = 0; i < rows.size(); ++i) {
      EW_ASSIGN(
          Question question,
          ParseQuestion(rows[i], delimiter).WithContext(fmt::format("{}: row {}", path, i + 1)));
      questions.push_back(std::move(question));
    }
  } else {
    int64_t line_number = 0;
    for (size_t begin = 0; begin < text.size();) {
      size_t end = text.find('\n', begin);
      if (end == std::string::npos) end = text.size();
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      begin = end + 1;
      ++line_number;
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const std::string where = fmt::format("{}:{}", path, line_number);
      EW_ASSIGN(const Json row, ParseJson(line).WithContext(where));
      EW_ASSIGN(Question question, ParseQuestion(row, delimiter).WithContext(where));
      questions.push_back(std::move(question));
    }
  }
  if (questions.empty()) return BadInput(path + ": there are no questions");
  return questions;
}

Result<std::vector<Question>> ReadMmlu(const std::string& path, int shots,
                                       const std::string& split) {
  EW_ASSIGN(const MmluFiles files, LoadMmluFiles(path));
  std::vector<Question> questions;
  for (const auto& [key, csv] : files) {
    if (!key.starts_with(split + "/")) continue;
    const std::string subject = key.substr(split.size() + 1);
    std::string spoken = subject;
    std::replace(spoken.begin(), spoken.end(), '_', ' ');
    std::string head = fmt::format(
        "The following are multiple choice questions (with answers) about {}.\n\n", spoken);
    if (shots > 0) {
      const auto dev = files.find("dev/" + subject);
      if (dev == files.end()) {
        return BadInput(fmt::format("{}: no dev split for {} (needed for --shots)", path, subject));
      }
      EW_ASSIGN(const std::vector<MmluRow> examples, ParseMmlu(dev->second, dev->first));
      if (static_cast<int>(examples.size()) < shots) {
        return BadInput(fmt::format("{}: {} has {} examples, --shots asks for {}", path, subject,
                                    examples.size(), shots));
      }
      for (int i = 0; i < shots; ++i) {
        const MmluRow& e = examples[static_cast<size_t>(i)];
        head += fmt::format("{} {}\n\n", e.prompt, static_cast<char>('A' + e.gold));
      }
    }
    EW_ASSIGN(std::vector<MmluRow> rows, ParseMmlu(csv, key));
    for (MmluRow& row : rows) {
      questions.push_back({head + row.prompt, {" A", " B", " C", " D"}, row.gold, subject});
    }
  }
  if (questions.empty()) {
    return BadInput(
        fmt::format("{}: no MMLU files (expected {}/SUBJECT_{}.csv)", path, split, split));
  }
  return questions;
}

}  // namespace edgewise::eval
