// Multiple choice as lm-evaluation-harness scores it: every choice is a continuation of the
// question, the one with the highest log-likelihood is the model's answer.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "infer/session.h"

namespace edgewise::eval {

struct Question {
  std::string context;
  std::vector<std::string> continuations;  // as scored, usually " " + choice
  int gold = 0;                            // index of the right one
  std::string group;                       // subject; may be empty
};

// JSON lines, or a JSON array, of objects: the question under "context", "question", "query" or
// "prompt"; a list of strings (or an object from letters to strings) under "choices", "options" or
// "endings"; the right one under "answer", "gold", "label" or "target" as index, letter or text.
// `delimiter` stands between question and choice. Error: names file, line or row, and key.
Result<std::vector<Question>> ReadQuestions(const std::string& path,
                                            const std::string& delimiter = " ");

// MMLU (arXiv 2009.03300) from a ZIP archive or a directory with dev/SUBJECT_dev.csv and
// SPLIT/SUBJECT_SPLIT.csv, at the top or in data/. The prompt is the harness's: description,
// `shots` examples of the dev split in file order, question with the lettered choices, "Answer:";
// scored are the letters. Subjects in alphabetical order.
Result<std::vector<Question>> ReadMmlu(const std::string& path, int shots,
                                       const std::string& split);

struct ChoiceOptions {
  int64_t limit = 0;  // only so many first questions (of each group); 0: all
  int64_t ctx = 0;    // longest input; 0: the model's limit. Longer ones lose their beginning.
  std::function<void(int64_t done, int64_t total, double accuracy)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct ChoiceScore {
  int64_t n = 0;
  int64_t correct = 0;
  double accuracy() const {
    return n > 0 ? static_cast<double>(correct) / static_cast<double>(n) : 0;
  }
};

struct ChoiceResult {
  ChoiceScore all;            // argmax of the log-likelihood
  ChoiceScore normalized;     // argmax of log-likelihood per character of the choice (acc_norm)
  double standard_error = 0;  // of all.accuracy(): sample standard deviation / sqrt(n)
  double macro_accuracy = 0;  // mean over groups, each weighing the same
  std::map<std::string, ChoiceScore> groups;
  int64_t truncated = 0;  // questions that were too long and lost their beginning
};

// Log-likelihoods of the continuations of one question, in nats. What a question shares with the
// one before it (examples, choices of the same question) is computed once.
class ChoiceScorer {
 public:
  ChoiceScorer(infer::Session& session, int64_t ctx) : session_(session), ctx_(ctx) {}
  Result<std::vector<double>> Score(const Question& question, bool* truncated);
  // The same for tokens. A context that leaves no room loses its beginning (*truncated = true).
  Result<std::vector<double>> Score(const std::vector<int32_t>& context,
                                    const std::vector<std::vector<int32_t>>& continuations,
                                    bool* truncated);

 private:
  Status Prefill(std::span<const int32_t> tokens);

  infer::Session& session_;
  const int64_t ctx_;
  std::vector<int32_t> cached_;  // tokens in the decoder's cache
  std::vector<float> logits_;    // [vocab] after cached_
};

Result<ChoiceResult> ScoreQuestions(infer::Session& session, const std::vector<Question>& questions,
                                    const ChoiceOptions& options);

// Tokens of context that the longest of these questions takes with its longest choice.
Result<int64_t> ContextForQuestions(const text::Tokenizer& tokenizer,
                                    const std::vector<Question>& questions,
                                    const ChoiceOptions& options);

// Standard error of a mean of n zeros and ones of which `correct` are ones, as the harness computes
// it (sample standard deviation / sqrt(n)); 0 for n < 2.
double BinaryStandardError(int64_t correct, int64_t n);

}  // namespace edgewise::eval
