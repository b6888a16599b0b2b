// Tokenizer::FromGguf: vocabularies as llama.cpp reads them.
#include <fmt/format.h>

#include <utility>

#include "text/bpe.h"
#include "text/gguf_splitting.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr std::string_view kMarker = "\xE2\x96\x81";

// Pieces become valid UTF-8: everything that handles them relies on it.
Result<Vocab> MakeVocab(GgufVocab& gguf) {
  if (gguf.tokens.empty()) return BadInput("tokenizer.ggml.tokens is missing or empty");
  if (!gguf.token_types.empty() && gguf.token_types.size() != gguf.tokens.size()) {
    return BadInput(fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens",
                                gguf.token_types.size(), gguf.tokens.size()));
  }
  Vocab vocab;
  for (size_t id = 0; id < gguf.tokens.size(); ++id) {
    if (!IsValidUtf8(gguf.tokens[id])) gguf.tokens[id] = LossyUtf8(gguf.tokens[id]);
    EW_RETURN_IF_ERROR(vocab.AddSynonym(gguf.tokens[id], static_cast<int64_t>(id))
                           .WithContext("tokenizer.ggml.tokens"));
  }
  return vocab;
}

Result<std::optional<int32_t>> CheckedId(const std::optional<uint32_t>& id, const GgufVocab& gguf,
                                         std::string_view key) {
  if (!id) return std::optional<int32_t>();
  // Writers use the largest number for "none".
  if (*id == 0xFFFFFFFFu) return std::optional<int32_t>();
  if (*id >= gguf.tokens.size()) {
    return BadInput(fmt::format("tokenizer.ggml.{} is {}, but there are {} tokens", key, *id,
                                gguf.tokens.size()));
  }
  return std::optional<int32_t>(static_cast<int32_t>(*id));
}

// Tokens that are found in the text before splitting.
void AddTokens(const GgufVocab& gguf, Tokenizer::Impl* impl) {
  for (size_t id = 0; id < gguf.token_types.size(); ++id) {
    const auto type = static_cast<GgufTokenType>(gguf.token_types[id]);
    const bool control = type == GgufTokenType::kControl || type == GgufTokenType::kUnknown;
    if ((!control && type != GgufTokenType::kUserDefined) || gguf.tokens[id].empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = gguf.tokens[id];
    token.special = control;
    impl->AddToken(std::move(token));
  }
}

Status MakeSentencePiece(GgufVocab& gguf, Vocab vocab, Tokenizer::Impl* impl) {
  if (gguf.scores.size() != gguf.tokens.size()) {
    return BadInput(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens",
                                gguf.scores.size(), gguf.tokens.size()));
  }
  for (float score : gguf.scores) {
    if (score != score) return BadInput("tokenizer.ggml.scores has a score that is not a number");
  }
  const bool space_prefix = gguf.add_space_prefix.value_or(true);
  if (space_prefix) impl->normalizer.push_back(MakePrepend(std::string(kMarker)));
  impl->normalizer.push_back(MakeReplace(" ", std::string(kMarker)));
  impl->decoder = MakeSentencePieceDecoder(space_prefix);
  impl->model =
      std::make_unique<SentencePieceModel>(std::move(vocab), std::move(gguf.scores), impl->unk);
  return Status::Ok();
}

Status MakeBpe(const GgufVocab& gguf, GgufSplitting splitting, Vocab vocab, Tokenizer::Impl* impl) {
  BpeModel::Merges merges;
  merges.reserve(gguf.merges.size());
  for (size_t i = 0; i < gguf.merges.size(); ++i) {
    const std::string_view line = gguf.merges[i];
    const size_t space = line.empty() ? std::string_view::npos : line.find(' ', 1);
    if (space == std::string_view::npos) {
      return BadInput(fmt::format("tokenizer.ggml.merges[{}] is not \"a b\"", i));
    }
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  EW_ASSIGN(impl->pre_tokenizer, MakeByteLevelSplits(splitting.expressions));
  impl->decoder.push_back(MakeByteLevelDecoder());
  BpeConfig config;
  config.byte_level = true;
  config.ignore_merges = splitting.ignore_merges;
  EW_ASSIGN(impl->model, BpeModel::Make(std::move(vocab), merges, std::move(config))
                             .WithContext("tokenizer.ggml.merges"));
  return Status::Ok();
}

}  // namespace

Result<Tokenizer> Tokenizer::FromGguf(GgufVocab gguf) {
  auto impl = std::make_shared<Impl>();
  EW_ASSIGN(Vocab vocab, MakeVocab(gguf));
  EW_ASSIGN(impl->bos, CheckedId(gguf.bos_id, gguf, "bos_token_id"));
  EW_ASSIGN(impl->eos, CheckedId(gguf.eos_id, gguf, "eos_token_id"));
  EW_ASSIGN(impl->pad, CheckedId(gguf.pad_id, gguf, "padding_token_id"));
  EW_ASSIGN(impl->unk, CheckedId(gguf.unk_id, gguf, "unknown_token_id"));
  EW_ASSIGN(const std::optional<int32_t> eot, CheckedId(gguf.eot_id, gguf, "eot_token_id"));
  impl->has_decoder = true;
  bool add_bos = false;
  if (gguf.model == "llama") {
    add_bos = true;
    EW_RETURN_IF_ERROR(MakeSentencePiece(gguf, std::move(vocab), impl.get()));
  } else if (gguf.model == "gpt2") {
    EW_ASSIGN(GgufSplitting splitting, GgufSplittingOf(gguf.pre));
    add_bos = splitting.add_bos;
    EW_RETURN_IF_ERROR(MakeBpe(gguf, std::move(splitting), std::move(vocab), impl.get()));
  } else {
    return Unsupported(fmt::format(
        "tokenizer.ggml.model '{}' is not known here: llama (SentencePiece) and gpt2 (BPE) are",
        gguf.model));
  }
  AddTokens(gguf, impl.get());
  if (gguf.add_bos.value_or(add_bos) && impl->bos) impl->prefix.push_back(*impl->bos);
  if (gguf.add_eos.value_or(false) && impl->eos) impl->suffix.push_back(*impl->eos);
  std::vector<int32_t> also_control;
  if (eot) also_control.push_back(*eot);
  EW_RETURN_IF_ERROR(impl->Finish(also_control));
  return Tokenizer(std::move(impl));
}

}  // namespace edgewise::text
