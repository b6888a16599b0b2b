// Decoders of tokenizer.json: from the spellings of tokens back to text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace edgewise::text {

struct JsonObject;

class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  // Rewrites the list; the text is the list joined. Never fails: what cannot be decoded stays.
  virtual void Apply(std::vector<std::string>* tokens) const = 0;
};

// Steps in the order in which they apply; a Sequence is flattened. Unknown types are Unsupported.
using DecoderSteps = std::vector<std::unique_ptr<const DecoderStep>>;
Status ParseDecoder(const JsonObject& json, DecoderSteps* steps);

std::unique_ptr<const DecoderStep> MakeByteLevelDecoder();
// Markers to spaces, byte tokens to bytes, and, on demand, without the space before the text.
DecoderSteps MakeSentencePieceDecoder(bool strip_first_space);

}  // namespace edgewise::text
