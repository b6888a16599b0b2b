#include "text/gguf_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/gguf_splitting.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMarker = "\xE2\x96\x81";
constexpr uint32_t kNone = 0xFFFFFFFFu;

GgufTokenType TypeOf(const GgufVocab& v, size_t id) {
  return id < v.token_types.size() ? static_cast<GgufTokenType>(v.token_types[id])
                                   : GgufTokenType::kNormal;
}

bool IsControl(GgufTokenType type) {
  return type == GgufTokenType::kControl || type == GgufTokenType::kUnknown;
}

std::string Piece(const GgufVocab& v, size_t id) {
  return IsValidUtf8(v.tokens[id]) ? v.tokens[id] : LossyUtf8(v.tokens[id]);
}

std::optional<std::string> PieceOf(const GgufVocab& v, const std::optional<uint32_t>& id) {
  if (!id || *id == kNone || *id >= v.tokens.size()) return std::nullopt;
  return Piece(v, *id);
}

Json AddedTokens(const GgufVocab& v) {
  Json added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const GgufTokenType type = TypeOf(v, id);
    if ((!IsControl(type) && type != GgufTokenType::kUserDefined) || v.tokens[id].empty()) continue;
    added.push_back({{"id", id},
                     {"content", Piece(v, id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", IsControl(type)}});
  }
  return added;
}

Json VocabOf(const GgufVocab& v) {
  Json vocab = Json::object();
  for (size_t id = 0; id < v.tokens.size(); ++id) vocab[Piece(v, id)] = id;
  return vocab;
}

Json BpeModel(Json vocab, Json merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

// Every way to cut a token into two others, best score first: what a model of scores does when it
// joins the best pair.
Json MergesFromScores(const GgufVocab& v) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < v.tokens.size(); ++id) ids.emplace(v.tokens[id], id);
  struct Merge {
    float score;
    size_t left, right;
  };
  std::vector<Merge> merges;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (TypeOf(v, id) != GgufTokenType::kNormal) continue;
    const std::string_view piece = v.tokens[id];
    std::vector<Merge> own;
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xC0) == 0x80) continue;
      const auto left = ids.find(piece.substr(0, cut)), right = ids.find(piece.substr(cut));
      if (left != ids.end() && right != ids.end()) {
        own.push_back({v.scores[id], left->second, right->second});
      }
    }
    std::sort(own.begin(), own.end(), [](const Merge& a, const Merge& b) {
      return std::tie(a.left, a.right) < std::tie(b.left, b.right);
    });
    merges.insert(merges.end(), own.begin(), own.end());
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.score > b.score; });
  Json out = Json::array();
  for (const Merge& m : merges) out.push_back(Piece(v, m.left) + " " + Piece(v, m.right));
  return out;
}

Json Sequence(const char* key, Json steps) { return {{"type", "Sequence"}, {key, steps}}; }

Json Replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

void MakeSentencePiece(const GgufVocab& v, Json& json) {
  const bool prefix = v.add_space_prefix.value_or(true);
  Json steps = Json::array();
  if (prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kMarker}});
  steps.push_back(Replace(" ", kMarker));
  json["normalizer"] = Sequence("normalizers", std::move(steps));
  json["pre_tokenizer"] = nullptr;
  Json decoders =
      Json::array({Replace(kMarker, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  json["decoder"] = Sequence("decoders", std::move(decoders));
  json["model"] = BpeModel(VocabOf(v), MergesFromScores(v));
  json["model"]["byte_fallback"] = true;
  json["model"]["fuse_unk"] = true;
  if (const auto unk = PieceOf(v, v.unk_id)) json["model"]["unk_token"] = *unk;
}

void MakeByteLevel(const GgufVocab& v, const GgufSplitting& splitting, Json& json) {
  json["normalizer"] = nullptr;
  Json steps = Json::array();
  for (const std::string& expression : splitting.expressions) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", expression}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", false}};
  steps.push_back(bytes);
  json["pre_tokenizer"] = Sequence("pretokenizers", std::move(steps));
  json["decoder"] = bytes;
  Json merges = Json::array();
  for (const std::string& merge : v.merges) {
    merges.push_back(IsValidUtf8(merge) ? merge : LossyUtf8(merge));
  }
  json["model"] = BpeModel(VocabOf(v), std::move(merges));
  json["model"]["ignore_merges"] = splitting.ignore_merges;
}

// Tokens that every text gets.
Json PostProcessor(const GgufVocab& v, bool add_bos_by_default) {
  Json single = Json::array(), special = Json::object();
  const auto add = [&](const std::optional<uint32_t>& id) {
    const std::string piece = *PieceOf(v, id);
    single.push_back({{"SpecialToken", {{"id", piece}, {"type_id", 0}}}});
    special[piece] = {{"id", piece}, {"ids", {*id}}, {"tokens", {piece}}};
  };
  const bool bos = v.add_bos.value_or(add_bos_by_default) && PieceOf(v, v.bos_id);
  const bool eos = v.add_eos.value_or(false) && PieceOf(v, v.eos_id);
  if (!bos && !eos) return nullptr;
  if (bos) add(v.bos_id);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (eos) add(v.eos_id);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

}  // namespace

Result<std::string> GgufToTokenizerJson(const GgufVocab& v) {
  Json json = {{"version", "1.0"},
               {"truncation", nullptr},
               {"padding", nullptr},
               {"added_tokens", AddedTokens(v)}};
  bool add_bos = true;
  if (v.model == "llama") {
    if (v.scores.size() != v.tokens.size()) {
      return BadInput(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens",
                                  v.scores.size(), v.tokens.size()));
    }
    MakeSentencePiece(v, json);
  } else if (v.model == "gpt2") {
    EW_ASSIGN(const GgufSplitting splitting, GgufSplittingOf(v.pre));
    add_bos = splitting.add_bos;
    MakeByteLevel(v, splitting, json);
  } else {
    return Unsupported(fmt::format(
        "tokenizer.ggml.model '{}' is not known here: llama (SentencePiece) and gpt2 (BPE) are",
        v.model));
  }
  json["post_processor"] = PostProcessor(v, add_bos);
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string GgufToTokenizerConfig(const GgufVocab& v, const std::string& chat_template) {
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"clean_up_tokenization_spaces", false}};
  const std::pair<const char*, std::optional<uint32_t>> named[] = {{"bos_token", v.bos_id},
                                                                   {"eos_token", v.eos_id},
                                                                   {"unk_token", v.unk_id},
                                                                   {"pad_token", v.pad_id}};
  for (const auto& [key, id] : named) {
    if (const auto piece = PieceOf(v, id)) json[key] = *piece;
  }
  if (!chat_template.empty()) json["chat_template"] = chat_template;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace edgewise::text
