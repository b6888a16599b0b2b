#include "base/units.h"

#include <gtest/gtest.h>

namespace edgewise {
namespace {

TEST(ParseBytes, UnitsOfBothKinds) {
  EXPECT_EQ(*ParseBytes("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(*ParseBytes("512M"), int64_t{512} << 20);
  EXPECT_EQ(*ParseBytes("1.5 GB"), 1'500'000'000);
  EXPECT_EQ(*ParseBytes("1048576"), 1 << 20);
}

TEST(ParseBytes, RefusesNonsense) {
  for (const char* text : {"", "GiB", "-1G", "2X", "2GiBs", "nan", "1e300G"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text;
  }
}

TEST(Format, ReadsAsPeopleWrite) {
  EXPECT_EQ(FormatBytes(1536), "1.50 KiB");
  EXPECT_EQ(FormatSeconds(843), "14:03");
  EXPECT_EQ(FormatSeconds(3729), "1:02:09");
}

}  // namespace
}  // namespace edgewise
