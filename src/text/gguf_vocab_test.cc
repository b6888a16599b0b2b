#include "text/gguf_vocab.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer_test_util.h"

namespace edgewise::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

GgufVocab SentencePiece() {
  GgufVocab v;
  v.model = "llama";
  auto add = [&](const std::string& piece, float score, GgufTokenType type) {
    v.tokens.push_back(piece);
    v.scores.push_back(score);
    v.token_types.push_back(static_cast<int32_t>(type));
  };
  add("<unk>", 0, GgufTokenType::kUnknown);
  add("<s>", 0, GgufTokenType::kControl);
  add("</s>", 0, GgufTokenType::kControl);
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    add(name, 0, GgufTokenType::kByte);
  }
  for (const char* piece : {"▁", "a", "b", "c", "<", "s", ">"}) {
    add(piece, -10, GgufTokenType::kNormal);
  }
  add("ab", -2, GgufTokenType::kNormal);  // 266
  add("bc", -1, GgufTokenType::kNormal);  // 267
  add("▁a", -3, GgufTokenType::kNormal);  // 268
  add("<s", -1, GgufTokenType::kNormal);  // 269
  add("USER", 0, GgufTokenType::kUserDefined);
  v.bos_id = 1;
  v.eos_id = 2;
  v.unk_id = 0;
  return v;
}

TEST(GgufVocab, SentencePieceMergesByScore) {
  Result<Tokenizer> t = Tokenizer::FromGguf(SentencePiece());
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_THAT(EncodeIds(*t, "abc"), ElementsAre(268, 267));
  EXPECT_THAT(EncodeIds(*t, "abc", true), ElementsAre(1, 268, 267));
  EXPECT_THAT(EncodeIds(*t, "\n"), ElementsAre(259, 3 + '\n'));
  EXPECT_THAT(EncodeIds(*t, "USERa"), ElementsAre(270, 268));
  EXPECT_EQ(t->Decode(Ids{268, 267, 3 + 0xC3, 3 + 0xA9}), "abc\u00E9");
  EXPECT_THAT(EncodeIds(*t, "<s>"), ElementsAre(1));
  Result<Ids> plain = t->EncodeWithoutSpecials("<s>");
  ASSERT_TRUE(plain.ok());
  EXPECT_THAT(*plain, ElementsAre(259, 269, 265));
}

TEST(GgufVocab, BytePairs) {
  GgufVocab v;
  v.model = "gpt2";
  v.pre = "smollm";
  for (int b = 0; b < 256; ++b) {
    v.tokens.emplace_back(ByteToChar(static_cast<unsigned char>(b)));
  }
  v.tokens.insert(v.tokens.end(), {"12", "Ġa", "<|end|>"});
  v.merges = {"1 2", "Ġ a"};
  v.token_types.assign(v.tokens.size(), static_cast<int32_t>(GgufTokenType::kNormal));
  v.token_types.back() = static_cast<int32_t>(GgufTokenType::kControl);
  v.eos_id = 258;
  v.add_eos = true;
  Result<Tokenizer> t = Tokenizer::FromGguf(v);
  ASSERT_TRUE(t.ok()) << t.status().message();
  // This splitting takes digits one by one.
  EXPECT_EQ(t->Decode(EncodeIds(*t, "12 a<|end|>")), "12 a<|end|>");
  EXPECT_THAT(EncodeIds(*t, " a", true), ElementsAre(257, 258));
  EXPECT_EQ(EncodeIds(*t, "12").size(), 2u);
  v.pre = "gpt-2";
  t = Tokenizer::FromGguf(v);
  ASSERT_TRUE(t.ok());
  EXPECT_THAT(EncodeIds(*t, "12"), ElementsAre(256));
}

TEST(GgufVocab, MalformedOnesAreErrors) {
  auto error = [](const GgufVocab& v) {
    Result<Tokenizer> t = Tokenizer::FromGguf(v);
    EXPECT_FALSE(t.ok());
    return t.ok() ? std::string() : t.status().message();
  };
  GgufVocab v = SentencePiece();
  v.scores.pop_back();
  EXPECT_THAT(error(v), HasSubstr("tokenizer.ggml.scores"));
  v = SentencePiece();
  v.token_types.pop_back();
  EXPECT_THAT(error(v), HasSubstr("token_type"));
  v = SentencePiece();
  v.bos_id = 271;
  EXPECT_THAT(error(v), HasSubstr("bos_token_id"));
  v = SentencePiece();
  v.tokens.clear();
  EXPECT_THAT(error(v), HasSubstr("tokenizer.ggml.tokens"));
  v = SentencePiece();
  v.model = "t5";
  EXPECT_THAT(error(v), HasSubstr("'t5'"));
  v = SentencePiece();
  v.model = "gpt2";
  v.pre = "from-the-future";
  EXPECT_THAT(error(v), HasSubstr("from-the-future"));
  v.pre = "gpt-2";
  v.merges = {"nospace"};
  EXPECT_THAT(error(v), HasSubstr("merges[0]"));
  v.merges = {"zz yy"};
  EXPECT_THAT(error(v), HasSubstr("'zz'"));
  v.merges = {""};
  EXPECT_THAT(error(v), HasSubstr("merges[0]"));
}

TEST(GgufVocab, InvalidUtf8InPiecesIsHarmless) {
  GgufVocab v = SentencePiece();
  v.tokens[262] = "\xFF\xFE";
  v.tokens[270] = "\xE2\x96";
  Result<Tokenizer> t = Tokenizer::FromGguf(v);
  ASSERT_TRUE(t.ok()) << t.status().message();
  (void)EncodeIds(*t, "c \u2581 c\xE2\x96");
  EXPECT_TRUE(IsValidUtf8(t->Decode(Ids{262, 270, 268})));
}

}  // namespace
}  // namespace edgewise::text
