// The unigram language model of SentencePiece (Kudo 2018) as in tokenizer.json: of all ways to cut
// a word into pieces the one with the highest sum of scores.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "text/token_model.h"

namespace edgewise::text {

class UnigramModel final : public TokenModel {
 public:
  // `scores`: one per id. Characters without a piece become byte tokens if `byte_fallback` and all
  // of theirs exist, else `unk`; without `unk` they are an error when met.
  static Result<std::unique_ptr<const TokenModel>> Make(Vocab vocab, std::vector<double> scores,
                                                        std::optional<int32_t> unk,
                                                        bool byte_fallback);

  Status Tokenize(std::string_view word, const std::vector<bool>* forbidden, ModelScratch& scratch,
                  std::vector<WordToken>* out) const override;
  const Vocab& vocab() const override { return vocab_; }

 private:
  UnigramModel() = default;
  Status AppendUnknown(std::string_view word, uint32_t begin, uint32_t end,
                       const std::vector<bool>* forbidden, std::vector<WordToken>* out) const;

  Vocab vocab_;
  std::vector<double> scores_;
  std::optional<int32_t> unk_;
  bool byte_fallback_ = false;
  double unk_score_ = 0;
  std::vector<std::string_view> sorted_;  // all pieces, for finding those that start a text
  std::array<int32_t, 256> byte_ids_;
};

}  // namespace edgewise::text
