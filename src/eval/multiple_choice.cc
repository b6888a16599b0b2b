#include "eval/multiple_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/loss.h"

namespace edgewise::eval {
namespace {

// A question as the harness encodes it: trailing spaces of the context belong to the continuation,
// and the continuation's tokens are those after the context's in the encoding of both together.
struct EncodedQuestion {
  std::vector<int32_t> context;
  std::vector<std::vector<int32_t>> continuations;
};

Result<EncodedQuestion> Encode(const text::Tokenizer& tokenizer, const Question& question) {
  std::string context = question.context;
  const size_t end = context.find_last_not_of(" \t\r\n\v\f");
  const size_t keep = end == std::string::npos ? 0 : end + 1;
  const std::string spaces = context.substr(keep);
  context.resize(keep);

  EncodedQuestion out;
  EW_ASSIGN(out.context, tokenizer.Encode(context));
  for (const std::string& continuation : question.continuations) {
    EW_ASSIGN(std::vector<int32_t> whole, tokenizer.Encode(context + spaces + continuation));
    const auto skip = static_cast<int64_t>(std::min(out.context.size(), whole.size()));
    out.continuations.emplace_back(whole.begin() + skip, whole.end());
    if (out.continuations.back().empty()) {
      return BadInput(fmt::format("a choice ('{}') has no tokens of its own", continuation));
    }
  }
  return out;
}

// Those that are scored: all, or the first of each group.
std::vector<const Question*> Chosen(const std::vector<Question>& questions, int64_t limit) {
  std::vector<const Question*> chosen;
  std::map<std::string, int64_t> taken;
  for (const Question& q : questions) {
    if (limit <= 0 || taken[q.group]++ < limit) chosen.push_back(&q);
  }
  return chosen;
}

// Characters of a choice without the delimiter, as acc_norm counts them (code points).
double Characters(const std::string& continuation) {
  const size_t begin = continuation.find_first_not_of(' ');
  int64_t n = 0;
  for (size_t i = begin == std::string::npos ? 0 : begin; i < continuation.size(); ++i) {
    n += (static_cast<unsigned char>(continuation[i]) & 0xC0) != 0x80;
  }
  return static_cast<double>(std::max<int64_t>(n, 1));
}

}  // namespace

// Brings the cache to exactly `tokens` and keeps the logits after the last one.
Status ChoiceScorer::Prefill(std::span<const int32_t> tokens) {
  EW_ASSIGN(infer::TokenModel * decoder, session_.decoder());
  if (std::equal(tokens.begin(), tokens.end(), cached_.begin(), cached_.end())) {
    return Status::Ok();
  }
  const size_t limit = std::min(cached_.size(), tokens.size() - 1);
  size_t shared = 0;
  while (shared < limit && cached_[shared] == tokens[shared]) ++shared;
  decoder->Truncate(static_cast<int64_t>(shared));
  cached_.resize(shared);
  EW_ASSIGN(const std::span<const float> logits, decoder->Prefill(tokens.subspan(shared)));
  cached_.assign(tokens.begin(), tokens.end());
  logits_.assign(logits.begin(), logits.end());
  return Status::Ok();
}

Result<std::vector<double>> ChoiceScorer::Score(const Question& question, bool* truncated) {
  EW_ASSIGN(EncodedQuestion encoded, Encode(session_.tokenizer(), question));
  if (encoded.context.empty()) {
    const auto bos = session_.tokenizer().bos_id();
    const auto eos = session_.tokenizer().eos_id();
    if (!bos && !eos) return BadInput("an empty question needs a BOS or EOS token");
    encoded.context.push_back(bos ? *bos : *eos);
  }
  return Score(encoded.context, encoded.continuations, truncated);
}

Result<std::vector<double>> ChoiceScorer::Score(
    const std::vector<int32_t>& full_context,
    const std::vector<std::vector<int32_t>>& continuations, bool* truncated) {
  std::vector<double> scores;
  for (const std::vector<int32_t>& continuation : continuations) {
    if (static_cast<int64_t>(continuation.size()) > ctx_) {
      return BadInput(
          fmt::format("a choice has {} tokens, the context holds {}", continuation.size(), ctx_));
    }
    // (context + continuation)[-(ctx + 1):][:-1] is what the model sees.
    std::vector<int32_t> context = full_context;
    const auto room = ctx_ + 1 - static_cast<int64_t>(continuation.size());
    if (static_cast<int64_t>(context.size()) > room) {
      context.erase(context.begin(), context.end() - room);
      *truncated = true;
    }
    EW_RETURN_IF_ERROR(Prefill(context));
    EW_ASSIGN(infer::TokenModel * decoder, session_.decoder());
    const auto vocab = static_cast<int64_t>(logits_.size());
    std::vector<float> after_context;
    if (continuation.size() > 1) after_context = logits_;
    double sum = 0;
    std::span<const float> logits = logits_;
    for (size_t i = 0; i < continuation.size(); ++i) {
      double logprob = 0;
      kernels::LogSoftmaxAt(session_.exec(), 1, vocab, logits.data(), &continuation[i], &logprob);
      sum += logprob;
      if (i + 1 < continuation.size()) {
        EW_ASSIGN(logits, decoder->Step(continuation[i]));
      }
    }
    decoder->Truncate(static_cast<int64_t>(cached_.size()));
    if (!after_context.empty()) logits_ = std::move(after_context);
    if (!std::isfinite(sum)) {
      return BadInput("the model's logits are not numbers: its weights may be damaged");
    }
    scores.push_back(sum);
  }
  return scores;
}

double BinaryStandardError(int64_t correct, int64_t n) {
  if (n < 2) return 0;
  const double p = static_cast<double>(correct) / static_cast<double>(n);
  return std::sqrt(p * (1 - p) / static_cast<double>(n - 1));
}

Result<int64_t> ContextForQuestions(const text::Tokenizer& tokenizer,
                                    const std::vector<Question>& questions,
                                    const ChoiceOptions& options) {
  size_t longest = 0;
  for (const Question* question : Chosen(questions, options.limit)) {
    EW_ASSIGN(const EncodedQuestion encoded, Encode(tokenizer, *question));
    // An empty question begins with one token of its own.
    const size_t context = std::max<size_t>(encoded.context.size(), 1);
    for (const auto& continuation : encoded.continuations) {
      longest = std::max(longest, context + continuation.size());
    }
  }
  return static_cast<int64_t>(longest);
}

Result<ChoiceResult> ScoreQuestions(infer::Session& session, const std::vector<Question>& questions,
                                    const ChoiceOptions& options) {
  EW_ASSIGN(infer::TokenModel * decoder, session.decoder());
  const int64_t ctx =
      options.ctx > 0 ? std::min(options.ctx, decoder->max_context()) : decoder->max_context();
  const std::vector<const Question*> chosen = Chosen(questions, options.limit);
  if (chosen.empty()) return BadInput("there are no questions");

  ChoiceScorer scorer(session, ctx);
  ChoiceResult result;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (options.cancel != nullptr && options.cancel->load()) {
      return Status(StatusCode::kInterrupted, "stopped before all questions were scored");
    }
    const Question& q = *chosen[i];
    bool truncated = false;
    EW_ASSIGN(std::vector<double> scores,
              scorer.Score(q, &truncated).WithContext(fmt::format("question {}", i + 1)));
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    for (size_t c = 0; c < scores.size(); ++c) scores[c] /= Characters(q.continuations[c]);
    const auto best_norm = std::max_element(scores.begin(), scores.end()) - scores.begin();
    ++result.all.n;
    ++result.normalized.n;
    result.all.correct += best == q.gold;
    result.normalized.correct += best_norm == q.gold;
    ++result.groups[q.group].n;
    result.groups[q.group].correct += best == q.gold;
    result.truncated += truncated;
    if (options.progress) {
      options.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(chosen.size()),
                       result.all.accuracy());
    }
  }
  result.standard_error = BinaryStandardError(result.all.correct, result.all.n);
  for (const auto& [name, score] : result.groups) result.macro_accuracy += score.accuracy();
  result.macro_accuracy /= static_cast<double>(result.groups.size());
  return result;
}

}  // namespace edgewise::eval
