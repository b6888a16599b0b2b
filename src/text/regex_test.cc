#include "text/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/regex_syntax.h"

namespace edgewise::text {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  Result<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) {
    ADD_FAILURE() << regex.status().message();
    return {};
  }
  RegexScratch scratch;
  std::vector<Range> ranges;
  EXPECT_TRUE(regex->FindAll(text, scratch, &ranges).ok());
  std::vector<std::string> out;
  for (const Range& range : ranges) out.emplace_back(text.substr(range.begin, range.size()));
  return out;
}

StatusCode CompileError(std::string_view pattern) {
  Result<Regex> regex = Regex::Compile(pattern);
  return regex.ok() ? StatusCode::kOk : regex.status().code();
}

TEST(Regex, SpaceIsNotMongolianVowelSeparator) {
  EXPECT_THAT(Matches(R"(\s+)", "a \u180E\u3000b"), ElementsAre(" ", "\u3000"));
  EXPECT_THAT(Matches(R"([^\s]+)", "a\u180Eb c"), ElementsAre("a\u180Eb", "c"));
  EXPECT_THAT(Matches(R"([\S]+)", "a\u180E c"), ElementsAre("a\u180E", "c"));
  EXPECT_THAT(Matches(R"([[:space:]]+)", "\u180E \t"), ElementsAre(" \t"));
}

TEST(Regex, HanIsTheScriptAlone) {
  // U+3001 has Han among its script extensions.
  EXPECT_THAT(Matches(R"(\p{Han}+)", "\u4E2D\u3001\u6587"), ElementsAre("\u4E2D", "\u6587"));
}

TEST(Regex, ClassesWithinClasses) {
  EXPECT_THAT(Matches(R"([^(\s|[.,!?])]+)", "ab.c|d(e f"), ElementsAre("ab", "c", "d", "e", "f"));
  EXPECT_THAT(Matches(R"([a[b-c]\]]+)", "xabc]y"), ElementsAre("abc]"));
  EXPECT_EQ(CompileError("[a[^b]]"), StatusCode::kUnsupported);
  EXPECT_EQ(CompileError("[a-z&&[^b]]"), StatusCode::kUnsupported);
  EXPECT_EQ(CompileError("[" + std::string(200, '[')), StatusCode::kUnsupported);
}

TEST(Regex, WhatOnigurumaReadsDifferently) {
  EXPECT_THAT(Matches(R"(\h+)", "xAf9 g"), ElementsAre("Af9"));
  EXPECT_THAT(Matches(R"(\v)", "\v\n"), ElementsAre("\v"));
  EXPECT_THAT(Matches(R"((?m:a.b))", "a\nb"), ElementsAre("a\nb"));
  EXPECT_THAT(Matches(R"(^.)", "ab\ncd"), ElementsAre("a", "c"));
  EXPECT_THAT(Matches(R"(\u00e9)", "e\u00E9"), ElementsAre("\u00E9"));
  EXPECT_THAT(Matches(R"(\p{^L}+)", "a12b"), ElementsAre("12"));
  EXPECT_THAT(Matches(R"(\p{Letter}+)", "a12b"), ElementsAre("a", "b"));
}

TEST(Regex, EmptyMatches) {
  EXPECT_THAT(Matches("x*", "axxb"), ElementsAre("", "xx", ""));
  EXPECT_THAT(Matches("(?=\u00E9)", "\u00E9\u00E9"), ElementsAre("", ""));
}

TEST(Regex, MalformedOnesAreErrors) {
  for (const char* pattern : {"(", "[a", "\\", "\\p", "\\p{", "\\p{Nonsense}", "a{2,1}", "(?<n",
                              "*", "\\C", "\\Qa\\E", "\\u12", "[[:nonsense:]]"}) {
    EXPECT_NE(CompileError(pattern), StatusCode::kOk) << pattern;
  }
  EXPECT_EQ(CompileError(std::string(100000, 'a')), StatusCode::kBadInput);
}

TEST(Regex, TooManyStepsIsAnError) {
  Result<Regex> regex = Regex::Compile("(a|a)*(a|a)*(a|a)*[bd]");
  ASSERT_TRUE(regex.ok());
  RegexScratch scratch;
  std::vector<Range> ranges;
  const Status status = regex->FindAll(std::string(4000, 'a') + "c", scratch, &ranges);
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace edgewise::text
