#include "data/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "data/masking.h"
#include "io/mapped_file.h"
#include "text/jinja/template.h"

namespace edgewise::data {

namespace {

using text::jinja::Value;

std::string_view Str(const Value& row, std::string_view key) {
  const Value* v = row.is_dict() ? row.dict().Find(key) : nullptr;
  return v != nullptr && v->is_string() ? v->str() : std::string_view();
}

bool Full(const std::vector<TaskItem>& items, const TaskOptions& options) {
  return options.limit >= 0 && static_cast<int64_t>(items.size()) >= options.limit;
}

Result<const Value*> FindSplit(const Value& splits, const std::string& split) {
  std::vector<std::string_view> names = {split};
  if (split == "valid") names = {"valid", "val", "validation", "dev"};
  std::string found;
  for (const auto& [key, value] : splits.dict().entries()) {
    if (!value.is_sequence()) continue;
    if (std::find(names.begin(), names.end(), key.str()) != names.end()) return &value;
    found.append(found.empty() ? "" : ", ").append(key.str());
  }
  return NotFound(fmt::format("no split '{}' (the file has {})", split, found));
}

// All labels of all splits, in alphabetical order, so that the choices do not depend on the split.
// The class of questions out of scope ("oos") is no intent.
std::vector<std::string> AllLabels(const Value& splits) {
  std::map<std::string, int, std::less<>> labels;
  for (const auto& [key, value] : splits.dict().entries()) {
    if (!value.is_sequence()) continue;
    for (const Value& pair : value.items()) {
      if (pair.is_sequence() && pair.items().size() == 2 && pair.items()[1].is_string() &&
          pair.items()[1].str() != "oos") {
        labels.emplace(LabelText(pair.items()[1].str()), 0);
      }
    }
  }
  std::vector<std::string> out;
  for (const auto& entry : labels) out.push_back(entry.first);
  return out;
}

Result<std::vector<TaskItem>> ReadLabelled(const Value& splits, const TaskOptions& options) {
  EW_ASSIGN(const Value* list, FindSplit(splits, options.split));
  const std::vector<std::string> labels = AllLabels(splits);
  std::vector<TaskItem> items;
  for (size_t i = 0; i < list->items().size() && !Full(items, options); ++i) {
    const Value& pair = list->items()[i];
    if (!pair.is_sequence() || pair.items().size() != 2 || !pair.items()[0].is_string() ||
        !pair.items()[1].is_string()) {
      return BadInput(fmt::format("row {}: not a pair of text and label", i + 1));
    }
    TaskItem item;
    item.prompt = std::string(pair.items()[0].str());
    item.group = LabelText(pair.items()[1].str());
    item.choices = labels;
    const auto at = std::lower_bound(labels.begin(), labels.end(), item.group);
    if (at == labels.end() || *at != item.group) continue;
    item.gold = static_cast<int>(at - labels.begin());
    item.is_turn = true;
    items.push_back(std::move(item));
  }
  return items;
}

Result<std::vector<TaskItem>> ReadQuestionList(const Value& splits, const TaskOptions& options) {
  EW_ASSIGN(const Value* list, FindSplit(splits, options.split));
  std::vector<TaskItem> items;
  for (size_t i = 0; i < list->items().size() && !Full(items, options); ++i) {
    const Value& row = list->items()[i];
    const Value* choices = row.is_dict() ? row.dict().Find("choices") : nullptr;
    const std::string_view answer = Str(row, "answer");
    TaskItem item;
    item.prompt = std::string(Str(row, "question"));
    item.gold = -1;
    if (choices != nullptr && choices->is_dict()) {
      for (const auto& [letter, text] : choices->dict().entries()) {
        if (!text.is_string()) return BadInput(fmt::format("row {}: a choice is no text", i + 1));
        if (letter.str() == answer) item.gold = static_cast<int>(item.choices.size());
        item.choices.emplace_back(text.str());
      }
    }
    if (item.prompt.empty() || item.choices.size() < 2 || item.gold < 0) {
      return BadInput(
          fmt::format("row {}: needs question, choices by letter and the answer's letter", i + 1));
    }
    items.push_back(std::move(item));
  }
  return items;
}

// "... question: Q Answer1: a Answer2: b Answer format: ...": the choices behind their numbers.
std::optional<TaskItem> SplitAnswerList(std::string_view instruction, std::string_view answer) {
  TaskItem item;
  item.gold = -1;
  size_t begin = instruction.find("Answer1: ");
  if (begin == std::string_view::npos) return std::nullopt;
  const auto trimmed = [](std::string_view s) {
    while (!s.empty() && (s.back() == ' ' || s.back() == '\n')) s.remove_suffix(1);
    return std::string(s);
  };
  std::string_view question = instruction.substr(0, begin);
  if (const size_t colon = question.find("question: "); colon != std::string_view::npos) {
    question.remove_prefix(colon + std::string_view("question: ").size());
  }
  for (int n = 1; begin != std::string_view::npos; ++n) {
    const std::string head = fmt::format("Answer{}: ", n);
    const std::string next_head = fmt::format("Answer{}: ", n + 1);
    const size_t from = begin + head.size();
    const size_t next = instruction.find(next_head, from);
    size_t end = next;
    if (next == std::string_view::npos) {
      end = std::min(instruction.find("\n\nAnswer format:", from), instruction.size());
    }
    if (answer == fmt::format("answer{}", n)) item.gold = n - 1;
    item.choices.push_back(trimmed(instruction.substr(from, end - from)));
    begin = next;
  }
  item.prompt = fmt::format("Question: {}\nAnswer:", trimmed(question));
  if (item.gold < 0 || item.choices.size() < 2) return std::nullopt;
  return item;
}

Result<std::vector<TaskItem>> ReadAnswerLists(const Value& rows, const TaskOptions& options) {
  std::vector<TaskItem> items;
  for (size_t i = 0; i < rows.items().size() && !Full(items, options); ++i) {
    std::optional<TaskItem> item =
        SplitAnswerList(Str(rows.items()[i], "instruction"), Str(rows.items()[i], "answer"));
    if (!item) {
      return BadInput(fmt::format(
          "row {}: needs an instruction with Answer1: ... and an answer such as answer1", i + 1));
    }
    items.push_back(std::move(*item));
  }
  return items;
}

// One line of the forms that are JSON lines; the form is that of the first line.
Result<TaskItem> ParseLine(const Value& row, TaskForm form) {
  TaskItem item;
  if (form == TaskForm::kLetteredLines) {
    item.prompt = std::string(Str(row, "input"));
    item.group = std::string(Str(row, "subject"));
    const std::string_view answer = Str(row, "output");
    for (char letter = 'A'; letter <= 'Z'; ++letter) {
      if (item.prompt.find(fmt::format("\n{}. ", letter)) == std::string::npos) break;
      item.choices.emplace_back(1, letter);
    }
    if (answer.size() != 1 || answer[0] < 'A' ||
        answer[0] >= 'A' + static_cast<int>(item.choices.size())) {
      return BadInput("needs an input with lettered choices and the answer's letter as output");
    }
    item.gold = answer[0] - 'A';
    return item;
  }
  const std::string_view text = Str(row, "text");
  const size_t at = text.rfind("\nA: ");
  if (at == std::string_view::npos || at + 4 == text.size()) {
    return BadInput("needs a text that ends in a line 'A: answer'");
  }
  item.prompt = std::string(text.substr(0, at + 3));
  item.choices = {std::string(text.substr(at + 4))};
  return item;
}

Result<std::vector<TaskItem>> ReadLines(std::string_view text, TaskForm form,
                                        const TaskOptions& options) {
  std::vector<TaskItem> items;
  int64_t line_number = 0;
  while (!text.empty() && !Full(items, options)) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("line {}", line_number);
    EW_ASSIGN(const Value row, text::jinja::ParseJsonValue(line).WithContext(where));
    EW_ASSIGN(TaskItem item, ParseLine(row, form).WithContext(where));
    items.push_back(std::move(item));
  }
  return items;
}

Result<Task> ReadWhole(std::string_view text, const TaskOptions& options) {
  Task task;
  const std::string_view first_line = text.substr(0, text.find('\n'));
  const Result<Value> line = text::jinja::ParseJsonValue(first_line);
  if (line.ok() && line->is_dict() &&
      (!Str(*line, "input").empty() || !Str(*line, "text").empty())) {
    task.form = Str(*line, "input").empty() ? TaskForm::kQuery : TaskForm::kLetteredLines;
    EW_ASSIGN(task.items, ReadLines(text, task.form, options));
    return task;
  }
  EW_ASSIGN(const Value whole, text::jinja::ParseJsonValue(text));
  if (whole.is_sequence()) {
    task.form = TaskForm::kAnswerList;
    EW_ASSIGN(task.items, ReadAnswerLists(whole, options));
    return task;
  }
  if (!whole.is_dict()) return BadInput("neither an object nor an array");
  EW_ASSIGN(const Value* list, FindSplit(whole, options.split));
  const bool pairs = !list->items().empty() && list->items()[0].is_sequence();
  task.form = pairs ? TaskForm::kLabelled : TaskForm::kQuestions;
  EW_ASSIGN(task.items, pairs ? ReadLabelled(whole, options) : ReadQuestionList(whole, options));
  return task;
}

}  // namespace

std::string_view TaskFormName(TaskForm form) {
  switch (form) {
    case TaskForm::kLabelled:
      return "labelled";
    case TaskForm::kQuestions:
      return "questions";
    case TaskForm::kAnswerList:
      return "answer-list";
    case TaskForm::kLetteredLines:
      return "lettered";
    case TaskForm::kQuery:
      return "query";
  }
  return "unknown";
}

std::string LabelText(std::string_view label) {
  std::string out(label);
  std::replace(out.begin(), out.end(), '_', ' ');
  return out;
}

Result<Task> ReadTask(const std::string& path, const TaskOptions& options) {
  if (path.ends_with(".zip") || path.ends_with(".gz")) {
    return Unsupported(fmt::format("{}: unpack it first", path));
  }
  EW_ASSIGN(const auto file, MappedFile::Open(path));
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                              file->bytes().size());
  EW_ASSIGN(Task task, ReadWhole(text, options).WithContext(path));
  if (task.items.empty()) return BadInput(fmt::format("{}: no questions", path));
  return task;
}

Result<text::RenderedChat> RenderTaskPrompt(const TaskItem& item, const text::ChatTemplate* chat) {
  if (!item.is_turn || chat == nullptr) {
    text::RenderedChat out;
    out.text = item.prompt;
    if (!item.prompt.empty()) out.input = {{0, static_cast<uint32_t>(item.prompt.size())}};
    return out;
  }
  text::ChatRequest request;
  request.messages = Value::List({text::ChatMessage("user", item.prompt)});
  request.add_generation_prompt = true;
  request.now = MaskOptions::FixedDate();
  return chat->Render(request);
}

}  // namespace edgewise::data
