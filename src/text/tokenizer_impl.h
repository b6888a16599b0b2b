// The parts of a Tokenizer, filled by the loaders. Immutable once loaded, but for the pool.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/regex.h"
#include "text/token_model.h"
#include "text/tokenizer.h"

namespace edgewise::text {

struct Tokenizer::Impl {
  // What one call to Encode works with.
  struct Scratch {
    RegexScratch regex;
    ModelScratch model;
    std::vector<Segment> raw_segments;
    std::vector<Range> literal;  // EncodeOptions::literal in the text at hand
    std::vector<Segment> segments;
    std::vector<WordToken> tokens;
  };

  NormalizerSteps normalizer;
  PreTokenizerSteps pre_tokenizer;
  std::unique_ptr<const TokenModel> model;
  DecoderSteps decoder;
  // Tokens are joined with spaces when the file has no decoder.
  bool has_decoder = false;

  std::vector<AddedToken> added;
  std::unordered_map<int32_t, size_t> added_by_id;           // indices into `added`
  std::unordered_map<std::string, size_t> added_by_content;  // likewise
  AddedTokenMatcher raw_matcher;                             // looks at the text as given
  AddedTokenMatcher normalized_matcher;                      // looks at the normalized text
  std::unordered_set<std::string> special_contents;

  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  std::optional<int32_t> bos, eos, pad, unk;
  int32_t vocab_size = 0;
  std::vector<bool> control;  // by id
  std::vector<int32_t> control_ids;

  // Adds a token, or changes the one of the same content.
  void AddToken(AddedToken token);
  // Fills what follows from the rest: patterns of the added tokens, matchers, vocab_size, control.
  // To be called once at the end of loading; `added` must have ids, contents and flags.
  // `also_control`: control tokens that are not marked special.
  Status Finish(const std::vector<int32_t>& also_control);

  Status Encode(std::string_view text, EncodeOptions options, Encoding* out) const;
  // The spelling that decoding starts from.
  std::optional<std::string_view> Spelling(int32_t id) const;

 private:
  // A text between added tokens.
  Status EncodeText(AlignedText text, EncodeOptions options, Scratch& scratch, Encoding* out) const;
  // A normalized text without added tokens; `pieces` has no ranges yet.
  Status EncodePieces(Pieces pieces, EncodeOptions options, Scratch& scratch, Encoding* out) const;

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> pool_;
};

}  // namespace edgewise::text
