#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "text/tokenizer_test_util.h"

namespace edgewise::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<std::pair<std::string, std::string>> kMerges = {
    {"t", "h"}, {"th", "e"}, {"Ġ", "the"}, {"<", "|"}, {"<|", "e"}};

TEST(Tokenizer, MergesByRankAndCutsWords) {
  const Tokenizer t = MakeTokenizer(ByteLevelJson(kMerges));
  EXPECT_THAT(EncodeIds(t, "the the"), ElementsAre(257, 258));
  EXPECT_EQ(t.Decode(EncodeIds(t, "the the\r\n é")), "the the\r\n é");
  EXPECT_EQ(t.vocab_size(), 263);
  EXPECT_EQ(t.TokenToId("Ġthe"), 258);
  EXPECT_EQ(t.IdToToken(258), "Ġthe");
  EXPECT_EQ(t.IdToToken(263), std::nullopt);
  EXPECT_EQ(t.IdToToken(-1), std::nullopt);
  EXPECT_EQ(t.PieceForDisplay(258), " the");
}

TEST(Tokenizer, LeftmostOfEqualPairsFirst) {
  const Tokenizer t = MakeTokenizer(ByteLevelJson({{"a", "a"}}));
  EXPECT_THAT(EncodeIds(t, "aaaaa"), ElementsAre(256, 256, 'a' - '!' + 33));
}

TEST(Tokenizer, SpansPointIntoTheBytes) {
  const Tokenizer t = MakeTokenizer(ByteLevelJson(kMerges));
  Result<Encoding> e = t.EncodeWithSpans("the é<|end|> the", {.add_special_tokens = false});
  ASSERT_TRUE(e.ok());
  ASSERT_EQ(e->ids.size(), 6u);
  // "the", " ", the two bytes of "é", the control token, " the".
  EXPECT_THAT(e->spans, ElementsAre(TextSpan{0, 3}, TextSpan{3, 4}, TextSpan{4, 6}, TextSpan{4, 6},
                                    TextSpan{6, 13}, TextSpan{13, 17}));
}

TEST(Tokenizer, SpansOfNormalizedText) {
  const Tokenizer t = MakeTokenizer(LlamaJson({"▁", "a", "b", "▁a"}, {{"▁", "a"}}));
  Result<Encoding> e = t.EncodeWithSpans("a ab", {.add_special_tokens = true});
  ASSERT_TRUE(e.ok());
  EXPECT_THAT(e->ids, ElementsAre(1, 262, 262, 261));
  EXPECT_THAT(e->spans,
              ElementsAre(TextSpan{0, 0}, TextSpan{0, 1}, TextSpan{1, 3}, TextSpan{3, 4}));
}

TEST(Tokenizer, UserTextNeverBecomesAControlToken) {
  const Tokenizer t = MakeTokenizer(ByteLevelJson(kMerges));
  EXPECT_THAT(EncodeIds(t, "<|end|>"), ElementsAre(261));
  Result<Ids> ids = t.EncodeWithoutSpecials("<|end|><think>");
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(t.Decode(*ids), "<|end|><think>");
  for (int32_t id : *ids) EXPECT_FALSE(t.IsControl(id));
  EXPECT_EQ(ids->back(), 262) << "plain added tokens are still found";
}

TEST(Tokenizer, NeitherMergesNorWholeWordsGiveAControlToken) {
  // "</s>" can be merged from its characters, as in vocabularies converted from SentencePiece.
  Json json =
      LlamaJson({"▁", "<", "/", "s", ">", "</", "s>"}, {{"<", "/"}, {"s", ">"}, {"</", "s>"}});
  json["normalizer"] = nullptr;
  for (bool ignore_merges : {false, true}) {
    json["model"]["ignore_merges"] = ignore_merges;
    const Tokenizer t = MakeTokenizer(json);
    for (int repeat = 0; repeat < 2; ++repeat) {  // the second time from the cache
      EXPECT_THAT(EncodeIds(t, "</s>"), ElementsAre(2));
      Result<Ids> ids = t.EncodeWithoutSpecials("</s>");
      ASSERT_TRUE(ids.ok());
      EXPECT_THAT(*ids, ElementsAre(264, 265));
    }
  }
}

TEST(Tokenizer, ConfigNamesTokens) {
  const Tokenizer t = MakeTokenizer(
      ByteLevelJson(kMerges),
      R"({"bos_token": null, "eos_token": {"content": "<|end|>"}, "pad_token": "<think>",
          "model_max_length": 1000000000000000019884624838656})");
  EXPECT_EQ(t.bos_id(), std::nullopt);
  EXPECT_EQ(t.eos_id(), 261);
  EXPECT_EQ(t.pad_id(), 262);
  EXPECT_TRUE(t.IsSpecial(261));
  EXPECT_FALSE(t.IsSpecial(262));
  EXPECT_TRUE(t.IsControl(262));
  EXPECT_THAT(t.control_ids(), ElementsAre(261, 262));
}

TEST(Tokenizer, TemplateAddsTokens) {
  const Tokenizer t = MakeTokenizer(LlamaJson({"▁", "a"}, {}));
  EXPECT_THAT(EncodeIds(t, "a", true), ElementsAre(1, 259, 260));
  EXPECT_THAT(EncodeIds(t, "", true), ElementsAre(1));
  EXPECT_THAT(EncodeIds(t, ""), ElementsAre());
  EXPECT_THAT(t.prefix_ids(), ElementsAre(1));
  EXPECT_EQ(t.Decode(EncodeIds(t, "a", true), true), "a");
  EXPECT_EQ(t.unk_id(), 0);
}

TEST(Tokenizer, BrokenUtf8IsReadAsReplacementCharacters) {
  const Tokenizer t = MakeTokenizer(ByteLevelJson({}));
  const std::string broken = std::string("a\xFF\xE4\xB8z\xF0\x9F\x98", 8) + std::string(1, '\0');
  const std::string lossy = std::string("a\uFFFD\uFFFDz\uFFFD") + std::string(1, '\0');
  Result<Encoding> e = t.EncodeWithSpans(broken);
  ASSERT_TRUE(e.ok());
  EXPECT_EQ(e->ids, EncodeIds(t, lossy));
  EXPECT_EQ(t.Decode(e->ids), lossy);
  EXPECT_EQ(e->spans[1], (TextSpan{1, 2}));
  EXPECT_EQ(e->spans[4], (TextSpan{2, 4}));
  EXPECT_EQ(e->spans.back(), (TextSpan{8, 9}));
}

TEST(DecodeStream, HoldsBackIncompleteCharacters) {
  const Tokenizer t = MakeTokenizer(LlamaJson({"▁", "a"}, {}));
  const Ids ids = EncodeIds(t, "a é", true);  // <s> ▁ a ▁ <0xC3> <0xA9>
  DecodeStream stream(t);
  std::vector<std::string> pieces;
  for (int32_t id : ids) pieces.push_back(stream.Step(id).value_or("-"));
  EXPECT_THAT(pieces, ElementsAre("-", "-", "a", " ", "-", "é"));
  EXPECT_EQ(stream.Finish(), "");
  EXPECT_EQ(stream.Step(ids[4]), std::nullopt);
  EXPECT_EQ(stream.Finish(), "\uFFFD");
}

TEST(DecodeStream, BytesThatNeverFormACharacterAreShownInTheEnd) {
  const Tokenizer t = MakeTokenizer(LlamaJson({"▁", "a"}, {}));
  DecodeStream stream(t);
  std::string shown;
  for (int i = 0; i < 3000; ++i) shown += stream.Step(3 + 0xFF).value_or("");
  EXPECT_FALSE(shown.empty());
  shown += stream.Finish();
  EXPECT_EQ(shown.size(), 3000 * 3u);
}

TEST(Tokenizer, SeveralThreadsAtOnce) {
  const Tokenizer t = MakeTokenizer(ByteLevelJson(kMerges));
  const std::string text = "the other <|end|> thing, the \u00e9 123";
  const Ids expected = EncodeIds(t, text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int k = 0; k < 4; ++k) {
    threads.emplace_back([&, k] {
      for (int i = 0; i < 200; ++i) wrong[k] += t.Encode(text, false).value() != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(Tokenizer, ErrorsNameTheComponent) {
  auto error = [](const Json& json) {
    Result<Tokenizer> t = Tokenizer::FromJson(DumpJson(json));
    EXPECT_FALSE(t.ok());
    return t.ok() ? std::string() : t.status().message();
  };
  Json json = ByteLevelJson({});
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Shout"}}}}};
  EXPECT_THAT(error(json), HasSubstr("normalizer.normalizers[0]: normalizer of type 'Shout'"));
  json = ByteLevelJson({});
  json["pre_tokenizer"] = {{"type", "Split"},
                           {"pattern", {{"Regex", "(a"}}},
                           {"behavior", "Isolated"},
                           {"invert", false}};
  EXPECT_THAT(error(json), HasSubstr("pre_tokenizer.pattern"));
  json = ByteLevelJson({});
  json["model"]["type"] = "WordPiece";
  EXPECT_THAT(error(json), HasSubstr("WordPiece"));
  json = ByteLevelJson({});
  json["model"]["merges"].push_back("a zz");
  EXPECT_THAT(error(json), HasSubstr("'zz' is not in the vocabulary"));
  json = ByteLevelJson({});
  json["model"]["vocab"]["big"] = int64_t{1} << 40;
  EXPECT_THAT(error(json), HasSubstr("'big'"));
  json = LlamaJson({}, {});
  json["post_processor"]["special_tokens"]["<s>"]["ids"] = {99999};
  EXPECT_THAT(error(json), HasSubstr("99999"));
  json = ByteLevelJson({});
  json["decoder"] = {{"type", "Reverse"}};
  EXPECT_THAT(error(json), HasSubstr("decoder of type 'Reverse'"));
}

TEST(Tokenizer, UnigramTakesTheBestPath) {
  Json json = {{"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", Json::array()}}}};
  for (const auto& [piece, score] : std::vector<std::pair<const char*, double>>{{"<unk>", 0},
                                                                                {"a", 0},
                                                                                {"b", 0},
                                                                                {"c", 0},
                                                                                {"d", 0},
                                                                                {"cd", 1},
                                                                                {"ab", 2},
                                                                                {"abc", 5},
                                                                                {"abcd", 10}}) {
    json["model"]["vocab"].push_back(Json::array({piece, score}));
  }
  const Tokenizer t = MakeTokenizer(json);
  EXPECT_THAT(EncodeIds(t, "abcdacdxx"), ElementsAre(8, 1, 5, 0));
}

}  // namespace
}  // namespace edgewise::text
