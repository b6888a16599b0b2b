#include "text/unicode.h"

#include <gtest/gtest.h>

#include "text/normalizer.h"

namespace edgewise::text {
namespace {

TEST(Unicode, LossyReplacesMaximalParts) {
  EXPECT_EQ(LossyUtf8("abc"), "abc");
  EXPECT_EQ(LossyUtf8("\xC0\x80"), "\uFFFD\uFFFD");                      // overlong
  EXPECT_EQ(LossyUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");            // surrogate
  EXPECT_EQ(LossyUtf8("\xF0\x9F\x98"), "\uFFFD");                        // truncated
  EXPECT_EQ(LossyUtf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // > U+10FFFF
  EXPECT_EQ(LossyUtf8("\xE4\xB8"
                      "a"),
            "\uFFFD"
            "a");
}

TEST(Unicode, EveryCharacterRoundTrips) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c == 0xD800) c = 0xE000;
    std::string utf8;
    AppendUtf8(c, &utf8);
    ASSERT_EQ(ScanChar(utf8, 0), static_cast<int>(utf8.size()));
    size_t pos = 0;
    ASSERT_EQ(NextChar(utf8, &pos), c);
    size_t start = 1;
    ASSERT_EQ(CharBefore(utf8, utf8.size(), &start), c);
    ASSERT_EQ(start, 0u);
  }
}

TEST(Unicode, ByteCharactersRoundTrip) {
  for (int b = 0; b < 256; ++b) {
    const auto c = SingleChar(ByteToChar(static_cast<unsigned char>(b)));
    ASSERT_TRUE(c);
    EXPECT_EQ(CharToByte(*c), b);
  }
  EXPECT_EQ(ByteToChar(' '), "Ġ");
  EXPECT_EQ(CharToByte(' '), std::nullopt);
  EXPECT_EQ(CharToByte(0x144), std::nullopt);
}

std::string Normal(NormalForm form, std::string_view text) {
  AlignedText aligned(text, 0);
  RegexScratch scratch;
  EXPECT_TRUE(MakeNormalForm(form)->Apply(&aligned, scratch).ok());
  return aligned.text();
}

TEST(NormalForm, KnownCases) {
  EXPECT_EQ(Normal(NormalForm::kNfc, "e\u0301 A\u030A x"), "\u00E9 \u00C5 x");
  EXPECT_EQ(Normal(NormalForm::kNfd, "\u00E9\u1E69"), "e\u0301s\u0323\u0307");
  EXPECT_EQ(Normal(NormalForm::kNfc, "s\u0307\u0323"), "\u1E69");
  EXPECT_EQ(Normal(NormalForm::kNfc, "\u1112\u1161\u11AB"), "\uD55C");
  EXPECT_EQ(Normal(NormalForm::kNfd, "\uD55C"), "\u1112\u1161\u11AB");
  EXPECT_EQ(Normal(NormalForm::kNfkc, "\uFB01\u2460\uFF76\uFF9E"), "fi1\u30AC");
  EXPECT_EQ(Normal(NormalForm::kNfc, "\u212B\u0344"), "\u00C5\u0308\u0301");
  EXPECT_EQ(Normal(NormalForm::kNfc, "\u09C7\u09BE"), "\u09CB");
}

TEST(NormalForm, SpansAreThoseOfTheSource) {
  AlignedText text("ae\u0301b", 10);
  RegexScratch scratch;
  ASSERT_TRUE(MakeNormalForm(NormalForm::kNfc)->Apply(&text, scratch).ok());
  ASSERT_EQ(text.text(),
            "a\u00E9"
            "b");
  EXPECT_EQ(text.Source({0, 1}), (TextSpan{10, 11}));
  EXPECT_EQ(text.Source({1, 3}), (TextSpan{11, 14}));
  EXPECT_EQ(text.Source({3, 4}), (TextSpan{14, 15}));
}

}  // namespace
}  // namespace edgewise::text
