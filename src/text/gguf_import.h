// tokenizer.json as the vocabulary of a GGUF file: what llama.cpp needs to give the same ids.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "text/gguf_vocab.h"

namespace edgewise::text {

// `tokenizer_json` of a byte-level BPE model whose splitting has a name in llama.cpp, or of a
// SentencePiece one (BPE with byte fallback); `tokenizer_config` ("" when absent) names the special
// tokens. `vocab`: rows of the embedding, so many tokens are written. Errors: another model, a
// splitting or normalisation that a GGUF file cannot say.
Result<GgufVocab> GgufVocabFromTokenizerJson(const std::string& tokenizer_json,
                                             const std::string& tokenizer_config, int64_t vocab);

}  // namespace edgewise::text
