// Text to token ids and back, as the Hugging Face tokenizers library does it from a tokenizer.json,
// or as llama.cpp does it from the vocabulary of a GGUF file.
//
// Where things may surprise:
//  - Text that is not UTF-8 is read as if every maximal broken part were U+FFFD (what Rust's
//    from_utf8_lossy and Python's errors="replace" do); spans still point into the bytes given.
//  - Decoding gives valid UTF-8: bytes that do not form characters become U+FFFD. Ids outside the
//    vocabulary are left out, as in the library.
//  - BPE dropout, truncation and padding in the file are for training loops of other programs and
//    are not applied.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/gguf_vocab.h"

namespace edgewise::text {

// Bytes [begin, end) of the text that was encoded. Tokens that hold a part of a character (byte
// level and byte fallback) have the span of the whole character, so neighbours may overlap; tokens
// that no text stands behind (added by the template of the post-processor) have an empty span.
// A marker that a normalizer puts before the text has the span of the first character.
struct TextSpan {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool operator==(const TextSpan&) const = default;
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<TextSpan> spans;  // one per id
};

struct EncodeOptions {
  // The post-processor's additions, such as a token at the beginning of the sequence.
  bool add_special_tokens = true;
  // Whether control tokens spelt out in the text become those tokens. With false the result holds
  // no control token at all, whatever the text says: for text that comes from users and data.
  bool parse_control_tokens = true;
  // Bytes of the text in which control tokens are not recognised although they are elsewhere:
  // what a template took from users. Ascending, disjoint. A control token that lies even partly in
  // such a range is read as text; everything else is as if the ranges were not there.
  std::span<const TextSpan> literal = {};
};

class Tokenizer {
 public:
  // `tokenizer_json`: the text of tokenizer.json (at most 64 MiB). `tokenizer_config_json`: the
  // text of tokenizer_config.json, or empty; it names the bos, eos, pad and unk tokens. Errors name
  // the component that is malformed (BadInput) or not known here (Unsupported).
  static Result<Tokenizer> FromJson(std::string_view tokenizer_json,
                                    std::string_view tokenizer_config_json = {});
  // `path`: a tokenizer.json, or a directory that holds one; a tokenizer_config.json beside it is
  // read too.
  static Result<Tokenizer> FromFile(const std::string& path);
  static Result<Tokenizer> FromGguf(GgufVocab vocab);

  // Cheap to copy; copies share the vocabulary. All members may be called from several threads.
  Tokenizer(const Tokenizer&) = default;
  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(const Tokenizer&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;
  ~Tokenizer();

  // Errors: text of more than 1 GiB; a regular expression of the file that needs more steps than
  // allowed on this text.
  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens = true) const;
  // Encode(text, false) in which control tokens are not recognised (parse_control_tokens = false).
  Result<std::vector<int32_t>> EncodeWithoutSpecials(std::string_view text) const;
  Result<Encoding> EncodeWithSpans(std::string_view text, EncodeOptions options = {}) const;

  // Special tokens are left out when `skip_special_tokens`.
  std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  // One more than the largest id. A model may have more rows than this (padded embeddings).
  int32_t vocab_size() const;
  // The id of a piece as the file spells it ("Ġthe", "▁the", "<0x0A>", "<|im_end|>").
  std::optional<int32_t> TokenToId(std::string_view piece) const;
  // The piece as the file spells it; nothing for ids that no token has.
  std::optional<std::string_view> IdToToken(int32_t id) const;
  // The piece for display: the text that the token stands for where that is valid UTF-8, else the
  // spelling of the file. Control tokens are shown as spelt.
  std::string PieceForDisplay(int32_t id) const;

  // Left out by Decode(skip_special_tokens): added tokens that the file marks special.
  bool IsSpecial(int32_t id) const;
  // Special tokens and those that the files name as bos, eos or pad or use in the post-processor:
  // what EncodeWithoutSpecials never gives.
  bool IsControl(int32_t id) const;
  const std::vector<int32_t>& control_ids() const;  // ascending

  // As far as the files say. The post-processor alone decides what Encode adds.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> unk_id() const;
  // What Encode(text, true) puts before and after the ids of any text.
  const std::vector<int32_t>& prefix_ids() const;
  const std::vector<int32_t>& suffix_ids() const;

  struct Impl;

 private:
  explicit Tokenizer(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

// Decodes a growing sequence token by token, as DecodeStream of the library: a piece is given out
// when its characters are complete. Not thread-safe.
class DecodeStream {
 public:
  explicit DecodeStream(Tokenizer tokenizer, bool skip_special_tokens = true)
      : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}

  // The text that `id` completes; nothing while there is nothing to show yet. Never an empty
  // string.
  std::optional<std::string> Step(int32_t id);
  // What is still held back, with U+FFFD for bytes that form no character; then starts afresh.
  std::string Finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::vector<int32_t> ids_;
  std::string prefix_;
  size_t prefix_index_ = 0;
};

}  // namespace edgewise::text
