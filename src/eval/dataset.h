// Loss and exact answers on a data set, with the masks that training uses.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "eval/multiple_choice.h"
#include "infer/session.h"

namespace edgewise::eval {

struct DatasetOptions {
  int64_t limit = 0;       // only so many first examples; 0: all
  int64_t max_tokens = 0;  // exact match: of one answer; 0: 16 more than the right one has
  std::function<void(int64_t done, int64_t total, double figure)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct DatasetLoss {
  double nll = 0;          // mean over the supervised tokens, nats
  double accuracy = 0;     // share of them that are the most likely token
  int64_t tokens = 0;      // supervised
  int64_t all_tokens = 0;  // of the examples
  int64_t examples = 0;
};

// Error: no supervised token; kInterrupted when cancelled.
Result<DatasetLoss> LossOnDataset(infer::Session& session,
                                  const std::vector<data::Example>& examples,
                                  const DatasetOptions& options);

// The last answer of an example: what stands before it, and its tokens.
struct Answer {
  std::vector<int32_t> prompt, gold;
};
// Nothing when nothing in the example is learned, or it begins with the answer.
std::optional<Answer> LastAnswer(const data::Example& example);

struct AnswerScore {
  ChoiceScore score;
  double standard_error = 0;
  // The first few wrong ones: what was asked, wanted and given.
  struct Miss {
    std::string prompt, wanted, given;
  };
  std::vector<Miss> misses;
  // ExactMatch: tokens generated after the first of each answer, and how long they took; of a run
  // with exits, how many tokens ended at each of them.
  int64_t decoded_tokens = 0;
  double decode_seconds = 0;
  std::vector<int64_t> decided;
};

// The model generates greedily after the prompt; right is the text that equals the answer, control
// tokens and white space at both ends left out.
Result<AnswerScore> ExactMatch(infer::Session& session, const std::vector<data::Example>& examples,
                               const DatasetOptions& options);

// Tokens of context that ExactMatch takes at most, and MatchLabels with the examples as labels.
int64_t ContextForAnswers(const std::vector<data::Example>& examples,
                          const DatasetOptions& options);
int64_t ContextForLabels(const std::vector<data::Example>& examples, const DatasetOptions& options);

// The answers that occur in `labels` are the choices; the one with the highest log-likelihood after
// the prompt is the model's. Right is the example's own.
Result<AnswerScore> MatchLabels(infer::Session& session, const std::vector<data::Example>& examples,
                                const std::vector<data::Example>& labels,
                                const DatasetOptions& options);

}  // namespace edgewise::eval
