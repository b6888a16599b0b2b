// Perplexity under the three protocols in use (eval/windows.h has their definitions).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eval/windows.h"
#include "infer/session.h"

namespace edgewise::eval {

// A text as it is scored, and the original whose words and bytes are counted.
struct Document {
  std::string text;
  std::string original;  // empty: the text itself
};

// A file: JSON lines with "text" (or WikiText's "page"), WikiText (articles, detokenised as the
// harness does), or plain text, which is one document. Error: names file and line.
Result<std::vector<Document>> ReadDocuments(const std::string& path);

// Tokens of one input where none are named: fixed min(2048, the model's limit); lm-eval the model's
// limit; llama.cpp 512.
int64_t DefaultContext(Protocol protocol, int64_t limit);

struct PerplexityOptions {
  Protocol protocol = Protocol::kFixed;
  int64_t ctx = 0;              // tokens of one input; 0: DefaultContext
  int64_t limit_tokens = 0;     // fixed, llama.cpp: only so many first tokens; 0: all
  int64_t limit_chunks = 0;     // fixed, llama.cpp; 0: all
  int64_t limit_documents = 0;  // lm-eval; 0: all
  std::function<void(int64_t done, int64_t total, double perplexity)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct PerplexityResult {
  Protocol protocol = Protocol::kFixed;
  int64_t ctx = 0;
  int64_t chunks = 0;            // inputs of the model
  int64_t documents = 0;         // lm-eval
  int64_t tokens = 0;            // scored
  int64_t words = 0, bytes = 0;  // lm-eval: of the originals
  // Mean negative log-likelihood in nats: per token, or per word under lm-eval.
  double nll = 0;
  double perplexity = 0;   // exp(nll)
  double uncertainty = 0;  // llama.cpp: the "+/-" that llama-perplexity prints
  double byte_perplexity = 0, bits_per_byte = 0;  // lm-eval
  // lm-eval: the word perplexity when the last input of a document reaches back until it is full,
  // as the harness's own code has it; `perplexity` is that of inputs that do not overlap.
  double full_context_perplexity = 0;
};

// The text is that of ReadDocuments; the chunked protocols read the file as one stream. Errors: a
// text shorter than one chunk (says how long it is); kInterrupted when cancelled.
Result<PerplexityResult> Perplexity(infer::Session& session, const std::string& path,
                                    const PerplexityOptions& options);

}  // namespace edgewise::eval
