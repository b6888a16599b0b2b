#include "report/markup.h"

#include <gtest/gtest.h>

namespace edgewise::report {
namespace {

TEST(EscapeHtml, MarkupBecomesText) {
  EXPECT_EQ(EscapeHtml("<script>alert('a & \"b\"')</script>"),
            "&lt;script&gt;alert(&#39;a &amp; &quot;b&quot;&#39;)&lt;/script&gt;");
}

TEST(EscapeHtml, KeepsOtherLanguages) {
  EXPECT_EQ(EscapeHtml("\xC3\xA4 \xE6\xBC\xA2 \xF0\x9F\x98\x80\n\t"),
            "\xC3\xA4 \xE6\xBC\xA2 \xF0\x9F\x98\x80\n\t");
}

TEST(EscapeHtml, ReplacesWhatIsNotText) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(EscapeHtml(std::string("a\0b", 3)), "a" + bad + "b");
  EXPECT_EQ(EscapeHtml("\x1B[31m"), bad + "[31m");
  EXPECT_EQ(EscapeHtml("\xFF"), bad);                      // no character begins so
  EXPECT_EQ(EscapeHtml("\xC3"), bad);                      // cut short
  EXPECT_EQ(EscapeHtml("\xC0\xAF"), bad + bad);            // overlong
  EXPECT_EQ(EscapeHtml("\xED\xA0\x80"), bad + bad + bad);  // surrogate
  EXPECT_EQ(EscapeHtml("\xE2\x80\xAE"
                       "abc"),
            bad + "abc");  // right-to-left override
}

TEST(Shorten, CutsBetweenCharacters) {
  EXPECT_EQ(Shorten("abc", 3), "abc");
  EXPECT_EQ(Shorten("a\xC3\xA4z", 2), "a ...");
}

TEST(Element, EscapesItsText) {
  EXPECT_EQ(Element("td", "1 < 2", " class=\"n\""), "<td class=\"n\">1 &lt; 2</td>");
}

}  // namespace
}  // namespace edgewise::report
