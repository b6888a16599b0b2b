#include "eval/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/scorer.h"
#include "eval/wikitext.h"
#include "io/env.h"
#include "io/json.h"

namespace edgewise::eval {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

struct Sums {
  double nll = 0, nll2 = 0;
  int64_t tokens = 0;
  // Loss of each window, for protocols that average over windows.
  std::vector<double> window_means;
};

// Tokens of the model's vocabulary that a file may ask for are checked by the pass itself.
class Runner {
 public:
  Runner(infer::Session& session, const PerplexityOptions& options, int64_t ctx)
      : options_(options), scorer_(session, ctx), losses_(static_cast<size_t>(ctx)) {}

  // `first_token`: replaces the first input of the window (llama-perplexity's BOS).
  Status Window(const std::vector<int32_t>& stream, const eval::Window& w,
                std::optional<int32_t> first_token, Sums& sums) {
    if (options_.cancel != nullptr && options_.cancel->load()) {
      return {StatusCode::kInterrupted, "stopped before the whole text was scored"};
    }
    const auto n = static_cast<size_t>(w.end - w.begin);
    inputs_.assign(stream.begin() + w.begin, stream.begin() + w.end);
    if (first_token) inputs_[0] = *first_token;
    const std::span<const int32_t> next(stream.data() + w.begin + 1, n);
    const auto first = w.first_scored - w.begin;
    EW_RETURN_IF_ERROR(
        scorer_.TokenLosses(inputs_, next, first, std::span<float>(losses_.data(), n)));
    double total = 0;
    for (size_t t = static_cast<size_t>(first); t < n; ++t) {
      total += losses_[t];
      sums.nll2 += static_cast<double>(losses_[t]) * losses_[t];
    }
    sums.nll += total;
    sums.tokens += w.scored();
    sums.window_means.push_back(total / static_cast<double>(w.scored()));
    return Status::Ok();
  }

  void Progress(int64_t done, int64_t total, double nll) {
    if (options_.progress) options_.progress(done, total, std::exp(nll));
  }

 private:
  const PerplexityOptions& options_;
  Scorer scorer_;
  std::vector<int32_t> inputs_;
  std::vector<float> losses_;
};

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

Result<PerplexityResult> Chunked(infer::Session& session, const std::string& path,
                                 const PerplexityOptions& options, int64_t ctx) {
  EW_ASSIGN(const std::string text, PosixEnv().ReadFile(path, kMaxTextBytes));
  // llama-perplexity reads control tokens that are spelt out in a text as text.
  const bool llama_cpp = options.protocol == Protocol::kLlamaCpp;
  EW_ASSIGN(text::Encoding encoding,
            session.tokenizer().EncodeWithSpans(
                text, {.add_special_tokens = true, .parse_control_tokens = !llama_cpp}));
  std::vector<int32_t>& ids = encoding.ids;
  if (options.limit_tokens > 0 && static_cast<int64_t>(ids.size()) > options.limit_tokens) {
    ids.resize(static_cast<size_t>(options.limit_tokens));
  }
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<Window> windows =
      llama_cpp ? LlamaCppWindows(tokens, ctx) : FixedWindows(tokens, ctx);
  if (windows.empty()) {
    return BadInput(
        fmt::format("{}: {} tokens are less than one chunk of {} (--ctx)", path, tokens, ctx));
  }
  if (options.limit_chunks > 0 && static_cast<int64_t>(windows.size()) > options.limit_chunks) {
    windows.resize(static_cast<size_t>(options.limit_chunks));
  }
  std::optional<int32_t> bos;
  if (llama_cpp && !session.tokenizer().prefix_ids().empty()) bos = session.tokenizer().bos_id();

  Runner runner(session, options, ctx);
  Sums sums;
  for (size_t i = 0; i < windows.size(); ++i) {
    EW_RETURN_IF_ERROR(runner.Window(ids, windows[i], bos, sums));
    runner.Progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(windows.size()),
                    sums.nll / static_cast<double>(sums.tokens));
  }
  PerplexityResult result;
  result.chunks = static_cast<int64_t>(windows.size());
  result.tokens = sums.tokens;
  const auto n = static_cast<double>(sums.tokens);
  result.nll = llama_cpp ? sums.nll / n : Mean(sums.window_means);
  result.perplexity = std::exp(result.nll);
  const double variance = sums.nll2 / n - (sums.nll / n) * (sums.nll / n);
  if (llama_cpp && sums.tokens > 1 && variance > 0) {
    result.uncertainty = std::sqrt(variance / (n - 1)) * result.perplexity;
  }
  return result;
}

Result<PerplexityResult> Rolling(infer::Session& session, const std::string& path,
                                 const PerplexityOptions& options, int64_t ctx) {
  EW_ASSIGN(std::vector<Document> documents, ReadDocuments(path));
  if (options.limit_documents > 0 &&
      static_cast<int64_t>(documents.size()) > options.limit_documents) {
    documents.resize(static_cast<size_t>(options.limit_documents));
  }
  const text::Tokenizer& tokenizer = session.tokenizer();
  std::optional<int32_t> prefix = tokenizer.bos_id();
  if (!prefix) prefix = tokenizer.eos_id();
  if (!prefix && !session.defaults().eos_ids.empty()) prefix = session.defaults().eos_ids[0];
  if (!prefix) {
    return Unsupported("protocol lm-eval needs a beginning- or end-of-sequence token");
  }
  Runner runner(session, options, ctx);
  Sums sums;
  double full_context_nll = 0;
  PerplexityResult result;
  for (const Document& document : documents) {
    EW_ASSIGN(const std::vector<int32_t> ids, tokenizer.Encode(document.text));
    // The prefix token takes the place of a BOS that the tokenizer adds by itself.
    const size_t skip = !ids.empty() && ids[0] == *prefix && !tokenizer.prefix_ids().empty();
    std::vector<int32_t> stream = {*prefix};
    stream.insert(stream.end(), ids.begin() + static_cast<int64_t>(skip), ids.end());
    for (const Window& w : RollingWindows(static_cast<int64_t>(stream.size()) - 1, ctx)) {
      const double before = sums.nll;
      EW_RETURN_IF_ERROR(runner.Window(stream, w, std::nullopt, sums));
      ++result.chunks;
      const Window full = WithFullContext(w, ctx);
      if (full == w) {
        full_context_nll += sums.nll - before;
      } else {
        Sums again;
        EW_RETURN_IF_ERROR(runner.Window(stream, full, std::nullopt, again));
        full_context_nll += again.nll;
      }
    }
    const std::string& original = document.original.empty() ? document.text : document.original;
    result.words += CountWords(original);
    result.bytes += static_cast<int64_t>(original.size());
    ++result.documents;
    runner.Progress(result.documents, static_cast<int64_t>(documents.size()),
                    sums.nll / static_cast<double>(result.words));
  }
  if (sums.tokens == 0) return BadInput(path + ": there is no text to score");
  result.tokens = sums.tokens;
  result.nll = sums.nll / static_cast<double>(result.words);
  result.perplexity = std::exp(result.nll);
  result.full_context_perplexity = std::exp(full_context_nll / static_cast<double>(result.words));
  const double per_byte = sums.nll / static_cast<double>(result.bytes);
  result.byte_perplexity = std::exp(per_byte);
  result.bits_per_byte = per_byte / std::log(2.0);
  return result;
}

}  // namespace

Result<std::vector<Document>> ReadDocuments(const std::string& path) {
  EW_ASSIGN(std::string text, PosixEnv().ReadFile(path, kMaxTextBytes));
  std::vector<Document> documents;
  if (!path.ends_with(".jsonl")) {
    for (std::string& page : SplitWikitextPages(text)) {
      documents.push_back({DetokenizeWikitext(page), page});
    }
    if (documents.empty()) documents.push_back({std::move(text), ""});
    return documents;
  }
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
    const bool page = row.is_object() && row.contains("page");
    const char* key = page ? "page" : "text";
    if (!row.is_object() || !row.contains(key) || !row[key].is_string()) {
      return BadInput(where + ": expected an object with a string \"text\"");
    }
    const auto value = row[key].get<std::string>();
    documents.push_back({page ? DetokenizeWikitext(value) : value, page ? value : ""});
  }
  return documents;
}

int64_t DefaultContext(Protocol protocol, int64_t limit) {
  if (protocol == Protocol::kLlamaCpp) return 512;
  return protocol == Protocol::kFixed ? std::min<int64_t>(2048, limit) : limit;
}

Result<PerplexityResult> Perplexity(infer::Session& session, const std::string& path,
                                    const PerplexityOptions& options) {
  const int64_t limit = session.model().config().max_positions;
  const int64_t ctx = options.ctx != 0 ? options.ctx : DefaultContext(options.protocol, limit);
  if (ctx < 2) return InvalidArgument(fmt::format("ctx {}: at least 2 tokens are needed", ctx));
  if (ctx > limit) {
    return InvalidArgument(
        fmt::format("ctx {} is more than the {} positions of this model", ctx, limit));
  }
  Result<PerplexityResult> result = options.protocol == Protocol::kLmEval
                                        ? Rolling(session, path, options, ctx)
                                        : Chunked(session, path, options, ctx);
  if (!result.ok()) return result;
  result->protocol = options.protocol;
  result->ctx = ctx;
  return result;
}

}  // namespace edgewise::eval
