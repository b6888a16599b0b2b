// How a long text is cut into model inputs under each perplexity protocol, as plain arithmetic.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise::eval {

// Perplexity is three different numbers; a figure without its protocol means nothing.
enum class Protocol {
  // Quantisation papers (GPTQ, SparseGPT, AWQ): non-overlapping chunks of ctx tokens, the mean loss
  // of each chunk's ctx - 1 predictions, perplexity = exp(mean over chunks), per token.
  kFixed,
  // lm-evaluation-harness, loglikelihood_rolling: every token of every document is predicted once,
  // the first from a prefix token; perplexity is per word of the original text.
  kLmEval,
  // llama-perplexity: chunks of ctx tokens, only the second half of each is scored, per token.
  kLlamaCpp,
};

std::string_view ProtocolName(Protocol protocol);  // "fixed", "lm-eval", "llama.cpp"
Result<Protocol> ParseProtocol(std::string_view name);

// One run of the model on tokens [begin, end) of a stream: the token after position i is predicted
// for every i in [first_scored, end). The stream has at least end + 1 tokens.
struct Window {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t first_scored = 0;
  int64_t scored() const { return end - first_scored; }
  bool operator==(const Window&) const = default;
};

// ctx >= 2. Tokens that do not fill a chunk are left out.
std::vector<Window> FixedWindows(int64_t tokens, int64_t ctx);
std::vector<Window> LlamaCppWindows(int64_t tokens, int64_t ctx);
// Over a stream of one prefix token and `tokens` tokens of the document: inputs of at most ctx that
// do not overlap (each begins with the one token of context that its first prediction needs).
std::vector<Window> RollingWindows(int64_t tokens, int64_t ctx);
// The same window with its input reaching back until it is full: what the harness itself feeds for
// the last window of a document.
Window WithFullContext(const Window& window, int64_t ctx);

}  // namespace edgewise::eval
