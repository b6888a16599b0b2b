#include "eval/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/checked.h"
#include "data/packing.h"
#include "eval/scorer.h"

namespace edgewise::eval {
namespace {

constexpr size_t kKeptMisses = 5;
constexpr int64_t kExtraTokens = 16;

bool Cancelled(const DatasetOptions& options) {
  return options.cancel != nullptr && options.cancel->load();
}
Status Interrupted() {
  return {StatusCode::kInterrupted, "stopped before all examples were scored"};
}

size_t Limited(size_t n, int64_t limit) {
  return limit > 0 ? std::min(n, static_cast<size_t>(limit)) : n;
}

std::string Strip(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n\v\f");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n\v\f") + 1 - begin);
}

// Of an answer that is generated.
int64_t MaxTokens(const Answer& answer, const DatasetOptions& options) {
  return options.max_tokens > 0 ? options.max_tokens
                                : static_cast<int64_t>(answer.gold.size()) + kExtraTokens;
}

// Counts an answer and keeps it when it is one of the first wrong ones.
class Tally {
 public:
  explicit Tally(const infer::Session& session) : tokenizer_(session.tokenizer()) {}

  void Add(const Answer& answer, const std::string& wanted, const std::string& given) {
    const bool right = wanted == given;
    ++out_.score.n;
    out_.score.correct += right;
    if (!right && out_.misses.size() < kKeptMisses) {
      out_.misses.push_back({tokenizer_.Decode(answer.prompt), wanted, given});
    }
  }
  void AddDecoding(const infer::Generation& g) {
    if (g.tokens_per_second > 0) {
      out_.decoded_tokens += std::llround(g.tokens_per_second * g.decode_seconds);
      out_.decode_seconds += g.decode_seconds;
    }
    out_.decided.resize(g.decided.size());
    for (size_t k = 0; k < g.decided.size(); ++k) out_.decided[k] += g.decided[k];
  }
  double accuracy() const { return out_.score.accuracy(); }
  Result<AnswerScore> Finish() {
    if (out_.score.n == 0) return BadInput("no example has an answer after a prompt");
    out_.standard_error = BinaryStandardError(out_.score.correct, out_.score.n);
    return std::move(out_);
  }

 private:
  const text::Tokenizer& tokenizer_;
  AnswerScore out_;
};

}  // namespace

Result<DatasetLoss> LossOnDataset(infer::Session& session,
                                  const std::vector<data::Example>& examples,
                                  const DatasetOptions& options) {
  const size_t n = Limited(examples.size(), options.limit);
  int64_t longest = 1;
  for (size_t i = 0; i < n; ++i) {
    longest = std::max(longest, static_cast<int64_t>(examples[i].ids.size()));
  }
  // Short examples share a pass; they never see each other.
  const int64_t row = std::max<int64_t>(longest, 512);
  const std::span<const data::Example> used(examples.data(), n);
  EW_ASSIGN(const auto rows, data::PackExamples(used, data::Packing::kInOrder, row));
  Scorer scorer(session, row);
  DatasetLoss out;
  double sum = 0, weight = 0;
  int64_t correct = 0, done = 0;
  for (const std::vector<int64_t>& documents : rows) {
    if (Cancelled(options)) return Interrupted();
    const TokenBatch batch = data::MakeBatch(used, documents);
    EW_ASSIGN(const kernels::HeadLossResult loss, scorer.BatchLoss(batch));
    sum += loss.loss_sum;
    weight += loss.weight_sum;
    correct += loss.correct;
    out.tokens += loss.labelled;
    out.all_tokens += batch.size();
    done += static_cast<int64_t>(documents.size());
    if (options.progress && weight > 0) {
      options.progress(done, static_cast<int64_t>(n), sum / weight);
    }
  }
  out.examples = static_cast<int64_t>(n);
  if (out.tokens == 0) return BadInput("nothing in these examples is learned");
  out.nll = sum / weight;
  out.accuracy = static_cast<double>(correct) / static_cast<double>(out.tokens);
  if (!std::isfinite(out.nll)) {
    return BadInput("the model's loss is not a number: its weights may be damaged");
  }
  return out;
}

std::optional<Answer> LastAnswer(const data::Example& example) {
  // targets[t] >= 0 means that token t + 1 is learned.
  auto learned = [&](int64_t t) {
    return t > 0 && example.targets[static_cast<size_t>(t - 1)] >= 0;
  };
  auto end = static_cast<int64_t>(example.ids.size());
  while (end > 0 && !learned(end - 1)) --end;
  int64_t begin = end;
  while (begin > 0 && learned(begin - 1)) --begin;
  if (begin == end || begin == 0) return std::nullopt;
  return Answer{{example.ids.begin(), example.ids.begin() + begin},
                {example.ids.begin() + begin, example.ids.begin() + end}};
}

Result<AnswerScore> ExactMatch(infer::Session& session, const std::vector<data::Example>& examples,
                               const DatasetOptions& options) {
  const size_t n = Limited(examples.size(), options.limit);
  infer::GenerateOptions generate;
  generate.sampling.temperature = 0;
  generate.sampling.repetition_penalty = 1;
  Tally tally(session);
  for (size_t i = 0; i < n; ++i) {
    if (Cancelled(options)) return Interrupted();
    const std::optional<Answer> answer = LastAnswer(examples[i]);
    if (!answer) continue;
    generate.max_tokens = MaxTokens(*answer, options);
    EW_ASSIGN(const infer::Generation out, session.Generate(answer->prompt, generate));
    tally.AddDecoding(out);
    tally.Add(*answer, Strip(session.tokenizer().Decode(answer->gold, true)), Strip(out.text));
    if (options.progress) {
      options.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(n), tally.accuracy());
    }
  }
  return tally.Finish();
}

int64_t ContextForAnswers(const std::vector<data::Example>& examples,
                          const DatasetOptions& options) {
  int64_t longest = 0;
  for (size_t i = 0; i < Limited(examples.size(), options.limit); ++i) {
    const std::optional<Answer> answer = LastAnswer(examples[i]);
    if (!answer) continue;
    const auto prompt = static_cast<int64_t>(answer->prompt.size());
    longest = std::max(longest, CheckedAdd(prompt, MaxTokens(*answer, options))
                                    .value_or(std::numeric_limits<int64_t>::max()));
  }
  return longest;
}

int64_t ContextForLabels(const std::vector<data::Example>& examples,
                         const DatasetOptions& options) {
  size_t prompt = 0, gold = 0;
  for (size_t i = 0; i < examples.size(); ++i) {
    const std::optional<Answer> answer = LastAnswer(examples[i]);
    if (!answer) continue;
    gold = std::max(gold, answer->gold.size());
    if (i < Limited(examples.size(), options.limit))
      prompt = std::max(prompt, answer->prompt.size());
  }
  return static_cast<int64_t>(prompt + gold);
}

Result<AnswerScore> MatchLabels(infer::Session& session, const std::vector<data::Example>& examples,
                                const std::vector<data::Example>& labels,
                                const DatasetOptions& options) {
  std::set<std::vector<int32_t>> distinct;
  for (const data::Example& example : labels) {
    if (std::optional<Answer> answer = LastAnswer(example)) distinct.insert(answer->gold);
  }
  // Sorted, so that neighbours share their first tokens.
  const std::vector<std::vector<int32_t>> choices(distinct.begin(), distinct.end());
  if (choices.size() < 2) return BadInput("fewer than two different answers to choose from");
  EW_ASSIGN(infer::TokenModel * decoder, session.decoder());
  ChoiceScorer scorer(session, decoder->max_context());
  Tally tally(session);
  const size_t n = Limited(examples.size(), options.limit);
  for (size_t i = 0; i < n; ++i) {
    if (Cancelled(options)) return Interrupted();
    const std::optional<Answer> answer = LastAnswer(examples[i]);
    if (!answer) continue;
    bool truncated = false;
    EW_ASSIGN(const std::vector<double> scores, scorer.Score(answer->prompt, choices, &truncated));
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    tally.Add(*answer, Strip(session.tokenizer().Decode(answer->gold, true)),
              Strip(session.tokenizer().Decode(choices[static_cast<size_t>(best)], true)));
    if (options.progress) {
      options.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(n), tally.accuracy());
    }
  }
  return tally.Finish();
}

}  // namespace edgewise::eval
