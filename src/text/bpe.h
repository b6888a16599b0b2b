// Byte pair encoding (Sennrich et al. 2016) as in tokenizer.json: the pair with the lowest rank is
// merged first, the leftmost of equals; O(n log n) in the length of a word.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/token_model.h"

namespace edgewise::text {

struct BpeConfig {
  std::optional<std::string> unk_token;  // for characters that the vocabulary lacks; else dropped
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool fuse_unk = false;
  bool byte_fallback = false;  // <0x..> tokens before unk_token
  bool ignore_merges = false;  // a word that is in the vocabulary is that token
  bool byte_level = false;     // words are bytes; the vocabulary spells them by ByteToChar
};

// Rank and result of merging a pair of ids. Open addressing; a quarter of the slots stay empty.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = 0;
    int32_t id = -1;
  };

  explicit MergeTable(size_t expected = 0);
  // A pair that is there already is given the new rank and result.
  void Insert(int32_t left, int32_t right, Merge merge);
  const Merge* Find(int32_t left, int32_t right) const {
    const uint64_t key = Key(left, right);
    for (size_t i = Slot(key);; i = (i + 1) & mask_) {
      if (keys_[i] == key) return &merges_[i];
      if (keys_[i] == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  size_t Slot(uint64_t key) const {
    key ^= key >> 32;
    key *= 0x9E3779B97F4A7C15u;
    key ^= key >> 29;
    key *= 0xBF58476D1CE4E5B9u;
    return (key ^ key >> 32) & mask_;
  }
  std::vector<uint64_t> keys_;
  std::vector<Merge> merges_;
  size_t mask_ = 0;
};

class BpeModel final : public TokenModel {
 public:
  // Merges in the order of their ranks; parts may be views of the caller's text. Error: a merge of
  // pieces that the vocabulary lacks.
  using Merges = std::vector<std::pair<std::string_view, std::string_view>>;
  static Result<std::unique_ptr<const BpeModel>> Make(Vocab vocab, const Merges& merges,
                                                      BpeConfig config);

  Status Tokenize(std::string_view word, const std::vector<bool>* forbidden, ModelScratch& scratch,
                  std::vector<WordToken>* out) const override;
  const Vocab& vocab() const override { return vocab_; }

 private:
  BpeModel(Vocab vocab, BpeConfig config);
  void FindMarkerSplits(const std::vector<int32_t>& merged);
  Status TokenizeWord(std::string_view word, const std::vector<bool>* forbidden,
                      ModelScratch& scratch, std::vector<WordToken>* out) const;
  Status InitSymbols(std::string_view word, const std::vector<bool>* forbidden,
                     ModelScratch& scratch) const;
  void MergeSymbols(const std::vector<bool>* forbidden, ModelScratch& scratch) const;
  std::optional<int32_t> WholeWord(std::string_view word, ModelScratch& scratch) const;

  Vocab vocab_;
  BpeConfig config_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_;      // of the character that stands for the byte
  std::array<int32_t, 256> fallback_ids_;  // of "<0x..>"
  bool has_fallback_ids_ = false;          // all 256
  std::optional<int32_t> unk_id_;
  bool affixes_ = false;
  // No token has the space marker behind another character, so that no merge crosses the place
  // before a marker: words are cut there, which keeps them short and in the cache.
  bool split_at_marker_ = false;
};

}  // namespace edgewise::text
