// Pre-tokenizers of tokenizer.json: how a normalized text is cut into words before the model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/aligned_text.h"
#include "text/regex.h"

namespace edgewise::text {

struct JsonObject;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Cuts and may change every piece.
  virtual Status Apply(Pieces* pieces, RegexScratch& scratch) const = 0;
};

struct PreTokenizerSteps {
  std::vector<std::unique_ptr<const PreTokenizer>> steps;
  // The last step maps bytes to the characters that stand for them. It is left to the model, which
  // then takes bytes: the longer text is never made.
  bool ends_in_byte_level = false;
};

// Steps in the order in which they apply; a Sequence is flattened. Unknown types are Unsupported.
Status ParsePreTokenizer(const JsonObject& json, PreTokenizerSteps* out);

// For a model that takes characters only: what ends_in_byte_level left out becomes a step.
void MapBytesToChars(PreTokenizerSteps* steps);

// Cuts at every match of every expression in turn, then to bytes: the form of all byte-level BPE
// vocabularies in GGUF files.
Result<PreTokenizerSteps> MakeByteLevelSplits(const std::vector<std::string>& expressions);

}  // namespace edgewise::text
