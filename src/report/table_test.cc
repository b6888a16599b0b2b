#include "report/table.h"

#include <gtest/gtest.h>

namespace edgewise::report {
namespace {

TEST(Table, AlignsNumbersRightAndTextLeft) {
  Table table({"name", "value"});
  table.AddRow({"loss", "1.5"});
  table.AddRow({"tokens", "12345"});
  EXPECT_EQ(table.Render(),
            "name    value\n"
            "------  -----\n"
            "loss      1.5\n"
            "tokens  12345\n");
}

TEST(Table, CutsTheFirstColumnToFit) {
  Table table({"tensor", "bytes"});
  table.AddRow({std::string(100, 'x'), "10"});
  const std::string text = table.Render(40);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 40u);
    begin = end + 1;
  }
  EXPECT_NE(text.find("xx.."), std::string::npos);
}

TEST(Table, CountsCodePoints) {
  EXPECT_EQ(DisplayWidth("h\xC3\xA9t\xC3\xA9"), 4 - 0 + 0);
  Table table({});
  table.AddRow({"\xC3\xA9", "a"});
  table.AddRow({"ee", "b"});
  EXPECT_EQ(table.Render(), "\xC3\xA9   a\nee  b\n");
}

TEST(Table, EmptyTableIsEmptyText) { EXPECT_EQ(Table({}).Render(), ""); }

TEST(Wrap, LinesKeepTheirWidth) {
  EXPECT_EQ(Wrap("one two three", 2, 0, 8), "one two\n  three");
  EXPECT_EQ(Wrap("one two", 0, 5, 8), "one\ntwo");
  EXPECT_EQ(Wrap("unbreakable", 0, 0, 4), "unbreakable");
  EXPECT_EQ(Wrap("", 2), "");
  EXPECT_EQ(WrapLines("a b\nc d\n", 2), "a b\nc d");
}

}  // namespace
}  // namespace edgewise::report
