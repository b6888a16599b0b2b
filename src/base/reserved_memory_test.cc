#include "base/reserved_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <vector>

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

// Whatever pages the system takes: a limit on memory counts what was committed.
TEST(ReservedMemory, NothingBesideAPartBecomesResident) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  const int64_t page = ReservedMemory::Granularity();
  auto memory = ReservedMemory::Reserve(16 * kMiB);
  ASSERT_TRUE(memory.ok());
  // Committed next to what is used, and not used.
  ASSERT_TRUE(memory->Commit(0, 16 * kMiB).ok());
  memory->Drop(0, 5 * kMiB + page);
  memory->Drop(11 * kMiB - page, 5 * kMiB + page);
  ASSERT_TRUE(memory->Commit(5 * kMiB + page, 6 * kMiB - 2 * page).ok());
  for (int64_t at = 5 * kMiB + page; at < 11 * kMiB - page; at += page) {
    memory->data()[at] = std::byte{1};
  }
  std::vector<unsigned char> resident(static_cast<size_t>(16 * kMiB / page));
  if (::mincore(memory->data(), static_cast<size_t>(16 * kMiB), resident.data()) != 0) {
    GTEST_SKIP() << "what is resident cannot be asked here";  // under emulation
  }
  const auto there = std::count_if(resident.begin(), resident.end(), [](auto r) { return r & 1; });
  EXPECT_EQ(there, 6 * kMiB / page - 2);
}

TEST(ReservedMemory, MoreThanThereIsIsAnError) {
  EXPECT_FALSE(ReservedMemory::Reserve(int64_t{1} << 60).ok());
}

}  // namespace
}  // namespace edgewise
