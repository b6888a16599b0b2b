// Normalizers of tokenizer.json: what happens to text before it is cut.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/aligned_text.h"
#include "text/regex.h"

namespace edgewise::text {

struct JsonObject;

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual Status Apply(AlignedText* text, RegexScratch& scratch) const = 0;
};

// Steps in the order in which they apply; a Sequence is flattened. Unknown types are Unsupported.
using NormalizerSteps = std::vector<std::unique_ptr<const Normalizer>>;
Status ParseNormalizer(const JsonObject& json, NormalizerSteps* steps);

// `prefix` before a text that is not empty; it stands for the first character.
void PrependTo(std::string_view prefix, AlignedText* text);
// The bytes of `range` as the characters that stand for them at byte level.
void AppendByteChars(const AlignedText& from, Range range, AlignedText* out);

std::unique_ptr<const Normalizer> MakePrepend(std::string prefix);
std::unique_ptr<const Normalizer> MakeReplace(std::string from, std::string to);

// The four normal forms of Unicode, by the tables of utf8proc.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::unique_ptr<const Normalizer> MakeNormalForm(NormalForm form);

// The rules of a SentencePiece model: `charsmap` as in the member precompiled_charsmap, decoded.
Result<std::unique_ptr<const Normalizer>> MakePrecompiled(std::string charsmap);

}  // namespace edgewise::text
