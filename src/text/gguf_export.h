// The vocabulary of a GGUF file as the files that Hugging Face libraries read.
#pragma once

#include <string>

#include "base/status.h"
#include "text/gguf_vocab.h"

namespace edgewise::text {

// tokenizer.json that gives the same ids as Tokenizer::FromGguf: byte-level BPE with the splitting
// of tokenizer.ggml.pre, or SentencePiece BPE with merges ordered by the scores (as transformers
// converts such models). Errors: those of Tokenizer::FromGguf.
Result<std::string> GgufToTokenizerJson(const GgufVocab& vocab);

// tokenizer_config.json: special tokens and the chat template ("": none).
std::string GgufToTokenizerConfig(const GgufVocab& vocab, const std::string& chat_template);

}  // namespace edgewise::text
