#include "base/reserved_memory.h"

#include <gtest/gtest.h>

#include <cstring>

namespace edgewise {
namespace {

TEST(ReservedMemory, PartsComeAndGoInPlace) {
  const int64_t page = ReservedMemory::Granularity();
  auto made = ReservedMemory::Reserve(4 * page);
  ASSERT_TRUE(made.ok());
  ReservedMemory memory = *std::move(made);
  ASSERT_TRUE(memory.Commit(0, page).ok());
  ASSERT_TRUE(memory.Commit(2 * page, 2 * page).ok());
  std::memset(memory.data(), 1, static_cast<size_t>(page));
  std::memset(memory.data() + 2 * page, 2, static_cast<size_t>(2 * page));
  memory.Drop(2 * page, page);
  EXPECT_EQ(memory.data()[page - 1], std::byte{1});
  EXPECT_EQ(memory.data()[3 * page], std::byte{2});
  // What comes back is empty.
  ASSERT_TRUE(memory.Commit(page, 2 * page).ok());
  EXPECT_EQ(memory.data()[page], std::byte{0});
  EXPECT_EQ(memory.data()[2 * page], std::byte{0});
}

TEST(ReservedMemory, MoreThanThereIsIsAnError) {
  EXPECT_FALSE(ReservedMemory::Reserve(int64_t{1} << 60).ok());
}

}  // namespace
}  // namespace edgewise
