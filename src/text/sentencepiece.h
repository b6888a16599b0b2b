// The merging of SentencePiece BPE models from a GGUF file, as llama.cpp does it: of all pairs of
// neighbours whose joined text is a token, the one with the highest score is joined first, the
// leftmost of equals. Characters that are no token become byte tokens.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "text/token_model.h"

namespace edgewise::text {

class SentencePieceModel final : public TokenModel {
 public:
  // `scores`: one per id. `unk`: for bytes that have no token; without it they are dropped.
  SentencePieceModel(Vocab vocab, std::vector<float> scores, std::optional<int32_t> unk);

  Status Tokenize(std::string_view word, const std::vector<bool>* forbidden, ModelScratch& scratch,
                  std::vector<WordToken>* out) const override;
  const Vocab& vocab() const override { return vocab_; }

 private:
  Vocab vocab_;
  std::vector<float> scores_;
  std::optional<int32_t> unk_;
  std::array<int32_t, 256> byte_ids_;
  size_t longest_ = 0;  // bytes of the longest piece
};

}  // namespace edgewise::text
