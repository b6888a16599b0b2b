// The vocabulary of a GGUF file as plain data. This layer does not read GGUF: whoever opens the
// file fills this from the metadata keys named here, and Tokenizer::FromGguf checks it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace edgewise::text {

// Values of tokenizer.ggml.token_type.
enum class GgufTokenType : int32_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct GgufVocab {
  std::string model;                // tokenizer.ggml.model: "llama" (SentencePiece) or "gpt2" (BPE)
  std::string pre;                  // tokenizer.ggml.pre: which splitting a BPE model uses
  std::vector<std::string> tokens;  // tokenizer.ggml.tokens
  std::vector<float> scores;        // tokenizer.ggml.scores; empty, or one per token
  std::vector<int32_t> token_types;  // tokenizer.ggml.token_type; empty, or one per token
  std::vector<std::string> merges;   // tokenizer.ggml.merges: "a b"
  std::optional<uint32_t> bos_id;    // tokenizer.ggml.bos_token_id
  std::optional<uint32_t> eos_id;    // tokenizer.ggml.eos_token_id
  std::optional<uint32_t> eot_id;    // tokenizer.ggml.eot_token_id
  std::optional<uint32_t> unk_id;    // tokenizer.ggml.unknown_token_id
  std::optional<uint32_t> pad_id;    // tokenizer.ggml.padding_token_id
  // Absent keys: the default of the model (SentencePiece: bos and space prefix; BPE: by `pre`).
  std::optional<bool> add_bos;           // tokenizer.ggml.add_bos_token
  std::optional<bool> add_eos;           // tokenizer.ggml.add_eos_token
  std::optional<bool> add_space_prefix;  // tokenizer.ggml.add_space_prefix
};

}  // namespace edgewise::text
