// What turns the words that a pre-tokenizer leaves into ids: BPE, unigram, SentencePiece merging.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/vocab.h"

namespace edgewise::text {

// A token of a word and its bytes [begin, end) in that word.
struct WordToken {
  int32_t id = 0;
  uint32_t begin = 0;
  uint32_t end = 0;
};

// Working memory, one per thread at a time; models keep what they like in it between words.
struct ModelScratch {
  struct Symbol {
    int32_t id = -1;
    int32_t prev = -1;
    int32_t next = -1;
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  struct Candidate {
    uint64_t order = 0;  // smaller comes first
    int32_t id = -1;     // what the merge gives (BPE), or its length in bytes (SentencePiece)
  };
  struct CachedWord {
    std::string word;
    bool allow_control = false;
    std::vector<WordToken> tokens;
  };

  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::string key;
  std::vector<CachedWord> cache;  // direct-mapped by a hash of the word; empty until first used
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the tokens of `word` (valid UTF-8, not empty; any bytes for a byte-level model).
  // `forbidden`: tokens that must not come out, one flag per id; null: none.
  virtual Status Tokenize(std::string_view word, const std::vector<bool>* forbidden,
                          ModelScratch& scratch, std::vector<WordToken>* out) const = 0;
  virtual const Vocab& vocab() const = 0;
};

// "<0x0A>"
std::string ByteTokenName(unsigned char byte);

}  // namespace edgewise::text
