// Malformed files and texts made to be slow: clear errors and bounded time, never a crash.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "text/tokenizer_test_util.h"

namespace edgewise::text {
namespace {

// Many components in one file.
std::string RichJson() {
  Json json = LlamaJson({"▁", "a", "b", "▁a"}, {{"▁", "a"}});
  json["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
  json["normalizer"]["normalizers"].push_back(
      {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}});
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", "(?i:'s)|[^\\r\\n\\p{L}[a-b]]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)"}}},
         {"behavior", "MergedWithNext"},
         {"invert", false}},
        {{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}}}}};
  // The byte tokens are not what is tested here.
  Json vocab;
  for (const auto& [piece, id] : json["model"]["vocab"].items()) {
    if (piece.substr(0, 3) != "<0x" || piece[3] == '0') vocab[piece] = id;
  }
  json["model"]["vocab"] = vocab;
  return DumpJson(json);
}

void LoadAndUse(const std::string& json) {
  Result<Tokenizer> t = Tokenizer::FromJson(json);
  if (!t.ok()) {
    EXPECT_FALSE(t.status().message().empty());
    return;
  }
  Result<Encoding> e = t->EncodeWithSpans("a b's 123  <s> \u00e9\xFF");
  if (!e.ok()) return;
  for (const TextSpan& span : e->spans) EXPECT_LE(span.begin, span.end);
  (void)t->Decode(e->ids, true);
  (void)t->EncodeWithoutSpecials("</s> a");
}

TEST(HostileTokenizer, TruncatedAnywhere) {
  const std::string json = RichJson();
  ASSERT_TRUE(Tokenizer::FromJson(json).ok()) << Tokenizer::FromJson(json).status().message();
  for (size_t n = 0; n < json.size(); n += 1 + n % 3) {
    EXPECT_FALSE(Tokenizer::FromJson(json.substr(0, n)).ok());
  }
}

TEST(HostileTokenizer, BitFlips) {
  const std::string json = RichJson();
  constexpr uint64_t kSeed = 20260109;
  SCOPED_TRACE(kSeed);
  Rng rng(kSeed, RngStream::kTest, 0);
  for (int round = 0; round < 3000; ++round) {
    std::string mutated = json;
    const int flips = 1 + static_cast<int>(rng.NextU64() % 3);
    for (int k = 0; k < flips; ++k) {
      mutated[rng.NextU64() % mutated.size()] ^= static_cast<char>(1 << (rng.NextU64() % 8));
    }
    LoadAndUse(mutated);
  }
}

TEST(HostileTokenizer, ReplacedValues) {
  // Every member, at any depth, given a value of another type.
  const Json json = *ParseJson(RichJson());
  const Json flat = json.flatten();
  for (const Json& value : {Json(nullptr), Json(-1), Json(1e300), Json("\u2581\u2581"),
                            Json::array({1}), Json::object({{"type", "Sequence"}}), Json("")}) {
    for (const auto& [pointer, old] : flat.items()) {
      Json changed = json;
      changed[Json::json_pointer(pointer)] = value;
      LoadAndUse(DumpJson(changed));
    }
  }
}

TEST(HostileTokenizer, DeepNesting) {
  EXPECT_FALSE(Tokenizer::FromJson(std::string(100000, '[')).ok());
  Json normalizer = {{"type", "NFC"}};
  for (int i = 0; i < 20; ++i) {
    normalizer = {{"type", "Sequence"}, {"normalizers", Json::array({normalizer})}};
  }
  Json json = ByteLevelJson({});
  json["normalizer"] = normalizer;
  EXPECT_FALSE(Tokenizer::FromJson(DumpJson(json)).ok());
}

// Quadratic work on these would take minutes, so that the test would run into its time limit.
TEST(HostileText, LongRuns) {
  std::vector<std::pair<std::string, std::string>> merges;
  std::string doubled = "a";
  for (int i = 0; i < 8; ++i, doubled += doubled) merges.emplace_back(doubled, doubled);
  Json metaspace =
      LlamaJson({"▁", "a", "▁▁", "▁▁▁▁", "aa"}, {{"▁", "▁"}, {"▁▁", "▁▁"}, {"a", "a"}});
  Json nfc = ByteLevelJson(merges);
  nfc["normalizer"] = {{"type", "NFC"}};
  std::string marks;
  for (int i = 0; i < 200000; ++i) marks += i % 2 != 0 ? "\u0301" : "\u0323";
  for (const Json& json : {ByteLevelJson(merges), metaspace, nfc}) {
    const Tokenizer t = MakeTokenizer(json);
    for (const std::string& text :
         {std::string(1 << 20, 'a'), std::string(200000, ' '), "x" + std::string(200000, ' ') + "x",
          std::string(1 << 19, '\n'), marks, std::string(1 << 18, '\xFF')}) {
      const Ids ids = EncodeIds(t, text);
      EXPECT_FALSE(ids.empty());
      if (text[0] == 'a' || text[0] == ' ' || text[0] == '\n') {
        EXPECT_EQ(t.Decode(ids), text);
      }
    }
  }
}

TEST(HostileText, WhiteSpaceTokensThatTakeWhiteSpace) {
  Json json = ByteLevelJson({});
  json["added_tokens"].push_back(AddedTokenJson(258, " ", false));
  json["added_tokens"].back()["rstrip"] = true;
  json["added_tokens"].back()["lstrip"] = true;
  const Tokenizer t = MakeTokenizer(json);
  EXPECT_EQ(EncodeIds(t, "a b").size(), 3u);
  EXPECT_FALSE(EncodeIds(t, "a" + std::string(1 << 20, ' ')).empty());
}

TEST(HostileText, RandomBytes) {
  const Tokenizer byte_level = MakeTokenizer(ByteLevelJson({{"a", "b"}}));
  const Tokenizer llama = MakeTokenizer(LlamaJson({"▁", "a", "▁a"}, {{"▁", "a"}}));
  constexpr uint64_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  Rng rng(kSeed, RngStream::kTest, 1);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(rng.NextU64() % 40, '\0');
    for (char& c : bytes) {
      // Leads, continuations, spaces and letters are more telling than uniform bytes.
      const uint64_t pick = rng.NextU64();
      c = pick % 4 == 0 ? " a<s>\xE2\x96\x81"[pick / 4 % 8] : static_cast<char>(pick >> 8);
    }
    for (const Tokenizer* t : {&byte_level, &llama}) {
      Result<Encoding> e = t->EncodeWithSpans(bytes, {.add_special_tokens = false});
      ASSERT_TRUE(e.ok());
      for (const TextSpan& span : e->spans) {
        ASSERT_LE(span.begin, span.end);
        ASSERT_LE(span.end, bytes.size());
      }
      const std::string decoded = t->Decode(e->ids);
      EXPECT_TRUE(IsValidUtf8(decoded));
      if (t == &byte_level) {
        EXPECT_EQ(decoded, LossyUtf8(bytes));
      }
    }
  }
}

TEST(HostileText, AnyIdsDecode) {
  const Tokenizer t = MakeTokenizer(LlamaJson({"▁"}, {}));
  Rng rng(3, RngStream::kTest, 2);
  DecodeStream stream(t);
  Ids ids;
  for (int i = 0; i < 2000; ++i) {
    ids.push_back(static_cast<int32_t>(rng.NextU64() % 700) - 100);
    (void)stream.Step(ids.back());
  }
  EXPECT_TRUE(IsValidUtf8(t.Decode(ids)));
  EXPECT_EQ(t.Decode(Ids{-5, 1 << 30}), "");
}

}  // namespace
}  // namespace edgewise::text
