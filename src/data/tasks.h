// Evaluation tasks in the forms that public data sets are distributed in, as prompts with choices
// or with one expected answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/chat_template.h"

namespace edgewise::data {

struct TaskItem {
  std::string prompt;                // what the model reads
  std::vector<std::string> choices;  // possible answers; one alone for an open question
  int gold = 0;                      // index of the right one
  std::string group;                 // subject or label; may be empty
  // Set for labelled texts: the prompt is a user turn when the model has a chat template, as
  // prompt and completion rows are in training.
  bool is_turn = false;
};

enum class TaskForm {
  kLabelled,    // {"train": [[text, label], ...], "test": ...} (clinc150): choices are the labels
  kQuestions,   // {"dev": [{"question", "choices": {"A": ...}, "answer": "A"}], ...} (HellaSwag)
  kAnswerList,  // [{"instruction": "... Answer1: ... Answer2: ...", "answer": "answer1"}] (ARC)
  kLetteredLines,  // {"subject", "input": "...\nA. ...\nAnswer:", "output": "A"} a line (MMLU)
  kQuery,          // {"text": "...\nQ: ...\nA: ..."} a line (WikiSQL): the answer is open
};
std::string_view TaskFormName(TaskForm form);

struct TaskOptions {
  std::string split = "test";  // of files that hold several; "valid" also finds val and dev
  int64_t limit = -1;          // only so many first items; < 0: all
};

struct Task {
  TaskForm form = TaskForm::kQuestions;
  std::vector<TaskItem> items;  // not empty
};

// The form is found from the file. Errors: none of these forms, a malformed row (file, row and
// what is wrong), no such split (names those there are).
Result<Task> ReadTask(const std::string& path, const TaskOptions& options);

// "what is my balance" -> the labels of clinc150 are written with spaces: "credit limit".
std::string LabelText(std::string_view label);

// The text that stands before the answer: the prompt itself, or for turns what the chat template
// makes of it, generation header included. `chat` may be null.
Result<text::RenderedChat> RenderTaskPrompt(const TaskItem& item, const text::ChatTemplate* chat);

}  // namespace edgewise::data
