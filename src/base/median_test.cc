#include "base/median.h"

#include <gtest/gtest.h>

namespace edgewise {
namespace {

TEST(Median, OddEvenAndNone) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({7, 5}), 6);
  EXPECT_EQ(Median({5}), 5);
  EXPECT_EQ(Median({}), 0);
}

}  // namespace
}  // namespace edgewise
