// The parts of evaluation that know no model: windows, words, WikiText, CSV, ZIP.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "eval/csv.h"
#include "eval/wikitext.h"
#include "eval/windows.h"
#include "eval/zip.h"

namespace edgewise::eval {
namespace {

TEST(Windows, FixedLeavesOutTheRest) {
  EXPECT_EQ(FixedWindows(10, 4), (std::vector<Window>{{0, 3, 0}, {4, 7, 4}}));
  EXPECT_TRUE(FixedWindows(3, 4).empty());
}

TEST(Windows, LlamaCppScoresTheSecondHalf) {
  EXPECT_EQ(LlamaCppWindows(8, 8), (std::vector<Window>{{0, 7, 4}}));
  int64_t scored = 0;
  for (const Window& w : LlamaCppWindows(60000, 512)) scored += w.scored();
  EXPECT_EQ(scored, 117 * 255);
}

TEST(Windows, RollingPredictsEveryTokenOnce) {
  for (int64_t tokens : {1, 3, 4, 5, 8, 9, 11}) {
    int64_t next = 0;
    for (const Window& w : RollingWindows(tokens, 4)) {
      EXPECT_EQ(w.first_scored, next);
      EXPECT_LE(w.end - w.begin, 4);
      EXPECT_EQ(w.begin, w.first_scored);
      const Window full = WithFullContext(w, 4);
      EXPECT_TRUE(full.begin == 0 || full.end - full.begin == 4);
      EXPECT_EQ(full.scored(), w.scored());
      next = w.end;
    }
    EXPECT_EQ(next, tokens);
  }
  EXPECT_EQ(RollingWindows(6, 4), (std::vector<Window>{{0, 4, 0}, {4, 6, 4}}));
}

TEST(Windows, ProtocolNamesRoundTrip) {
  for (const char* name : {"fixed", "lm-eval", "llama.cpp"}) {
    EXPECT_EQ(ProtocolName(*ParseProtocol(name)), name);
  }
  EXPECT_FALSE(ParseProtocol("gptq").ok());
}

TEST(Words, AsPythonSplits) {
  EXPECT_EQ(CountWords(""), 1);
  EXPECT_EQ(CountWords("one"), 1);
  EXPECT_EQ(CountWords("one two\n\nthree"), 3);
  EXPECT_EQ(CountWords(" one "), 3);  // empty strings at both ends
  EXPECT_EQ(CountWords("a\xC2\xA0"
                       "b\xE3\x80\x80"
                       "c"),
            3);  // no-break and ideographic space
  EXPECT_EQ(CountWords("a\xE2\x80\x8B"
                       "b"),
            1);  // zero-width space is none
}

TEST(Wikitext, PagesBeginAtTitles) {
  const auto pages =
      SplitWikitextPages(" \n = One = \n \n text \n = = Part = = \n more \n = Two = \n x \n");
  ASSERT_EQ(pages.size(), 2u);
  EXPECT_EQ(pages[0], " = One = \n \n text \n = = Part = = \n more \n");
  EXPECT_EQ(pages[1], " = Two = \n x \n");
  EXPECT_TRUE(SplitWikitextPages("just text\n = Title = \n").empty());
}

TEST(Wikitext, DetokenizesLikeTheHarness) {
  EXPECT_EQ(DetokenizeWikitext("the \" first \" , 1 @,@ 000 @-@ year ( old ) dog 's day . \n"),
            "the \"first\", 1,000-year (old) dog's day.\n");
  EXPECT_EQ(DetokenizeWikitext(" = = Part = = \n"), " == Part ==\n");
  EXPECT_EQ(DetokenizeWikitext("cats ' food [ 1 ] N 5"), "cats' food [1] 1 5");
}

TEST(Csv, QuotesCommasAndLineEnds) {
  const auto rows = ParseCsv("a,\"b, \"\"c\"\"\",d\r\n\n\"two\nlines\",,\n");
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0], (std::vector<std::string>{"a", "b, \"c\"", "d"}));
  EXPECT_EQ((*rows)[1], (std::vector<std::string>{"two\nlines", "", ""}));
}

TEST(Csv, ErrorsNameTheLine) {
  EXPECT_NE(ParseCsv("a\n\"b").status().message().find("line 2"), std::string::npos);
  EXPECT_NE(ParseCsv("\"a\"b\n").status().message().find("line 1"), std::string::npos);
}

// A stored archive of one entry "a.txt" holding "hello".
std::string TinyZip() {
  auto u16 = [](int v) { return std::string{char(v & 255), char(v >> 8)}; };
  auto u32 = [&](uint32_t v) { return u16(int(v & 0xFFFF)) + u16(int(v >> 16)); };
  const std::string body = "hello", name = "a.txt";
  const uint32_t crc = 0x3610a686;  // CRC-32 of "hello"
  const std::string common = u16(0) + u16(0) + u16(0) + u16(0) + u32(crc) + u32(5) + u32(5) +
                             u16(static_cast<int>(name.size())) + u16(0);
  const std::string local = "PK\x03\x04" + u16(20) + common + name + body;
  const std::string entry =
      "PK\x01\x02" + u16(20) + u16(20) + common + u16(0) + u16(0) + u16(0) + u32(0) + u32(0) + name;
  return local + entry + "PK\x05\x06" + u16(0) + u16(0) + u16(1) + u16(1) +
         u32(static_cast<uint32_t>(entry.size())) + u32(static_cast<uint32_t>(local.size())) +
         u16(0);
}

Status OpenAndReadAll(const std::string& bytes) {
  const std::string path = ::testing::TempDir() + "/zip_test.zip";
  std::ofstream(path, std::ios::binary) << bytes;
  EW_ASSIGN(const ZipFile zip, ZipFile::Open(path));
  for (const ZipEntry& entry : zip.entries()) {
    EW_ASSIGN(const std::string text, zip.Read(entry));
    if (text != "hello") return Internal("read '" + text + "'");
  }
  return Status::Ok();
}

TEST(Zip, ReadsAndSurvivesEveryCorruptByte) {
  const std::string good = TinyZip();
  EXPECT_TRUE(OpenAndReadAll(good).ok()) << OpenAndReadAll(good).message();
  for (size_t cut = 0; cut < good.size(); ++cut) {
    EXPECT_FALSE(OpenAndReadAll(good.substr(0, cut)).ok()) << cut;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (int value : {0x00, 0xFF, 0x41}) {
      std::string bad = good;
      bad[i] = static_cast<char>(value);
      const Status status = OpenAndReadAll(bad);  // must not crash; content is CRC-checked
      EXPECT_NE(status.code(), StatusCode::kInternal) << i;
    }
  }
}

}  // namespace
}  // namespace edgewise::eval
