// Small tokenizer files for tests.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace edgewise::text {

using Ids = std::vector<int32_t>;

inline Json AddedTokenJson(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// GPT-2's form: ids 0..255 are the bytes, then the results of `merges` (pairs of spellings), then
// the control token "<|end|>" and the plain added token "<think>".
inline Json ByteLevelJson(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json json = {
      {"version", "1.0"},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"merges", Json::array()}}}};
  Json& vocab = json["model"]["vocab"];
  int id = 0;
  for (int b = 0; b < 256; ++b) {
    vocab[std::string(ByteToChar(static_cast<unsigned char>(b)))] = id++;
  }
  for (const auto& [left, right] : merges) {
    json["model"]["merges"].push_back({left, right});
    if (!vocab.contains(left + right)) vocab[left + right] = id++;
  }
  json["added_tokens"] = {AddedTokenJson(id, "<|end|>", true),
                          AddedTokenJson(id + 1, "<think>", false)};
  return json;
}

// Llama-2's form: <unk>, <s>, </s>, the 256 byte tokens, then `pieces`, merged by `merges`.
inline Json LlamaJson(const std::vector<std::string>& pieces,
                      const std::vector<std::pair<std::string, std::string>>& merges) {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  int id = 3;
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    vocab[name] = id++;
  }
  for (const std::string& piece : pieces) vocab[piece] = id++;
  Json list = Json::array();
  for (const auto& [left, right] : merges) list.push_back(left + " " + right);
  return {{"version", "1.0"},
          {"added_tokens",
           {AddedTokenJson(0, "<unk>", true), AddedTokenJson(1, "<s>", true),
            AddedTokenJson(2, "</s>", true)}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "▁"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", list}}}};
}

inline Tokenizer MakeTokenizer(const Json& json, const std::string& config = {}) {
  Result<Tokenizer> tokenizer = Tokenizer::FromJson(DumpJson(json), config);
  if (!tokenizer.ok()) ADD_FAILURE() << tokenizer.status().message();
  return *std::move(tokenizer);
}

inline Ids EncodeIds(const Tokenizer& tokenizer, std::string_view text, bool specials = false) {
  Result<Ids> ids = tokenizer.Encode(text, specials);
  if (!ids.ok()) ADD_FAILURE() << ids.status().message();
  return ids.ok() ? *ids : Ids();
}

}  // namespace edgewise::text
