#include "exec/memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

namespace edgewise {
namespace {

namespace fs = std::filesystem;

// A made-up /proc and /sys.
class MemoryLimitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ =
        (fs::temp_directory_path() / ("edgewise-memory-" + std::to_string(::getpid()))).string();
    fs::remove_all(root_);
    Put("/proc/self/status", "Name:\tx\nVmHWM:\t 900 kB\nVmRSS:\t 800 kB\nRssAnon:\t 500 kB\n");
    Put("/proc/meminfo", "MemTotal: 100000 kB\nMemAvailable:   10000 kB\n");
  }
  void TearDown() override { fs::remove_all(root_); }
  void Put(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  MemoryLimit Detect() { return DetectMemoryLimit(root_, /*use_rlimit=*/false); }
  std::string root_;
};

TEST_F(MemoryLimitTest, ReadsProcessStatus) {
  const ProcessMemory m = ReadProcessMemory(root_ + "/proc");
  EXPECT_EQ(m.rss_bytes, 800 * 1024);
  EXPECT_EQ(m.peak_rss_bytes, 900 * 1024);
  EXPECT_EQ(m.anon_bytes, 500 * 1024);
}

TEST_F(MemoryLimitTest, WithoutCgroupsAvailableMemoryDecides) {
  EXPECT_EQ(Detect().bytes, 8000 * 1024 + 500 * 1024);
  EXPECT_EQ(Detect().source, "80% of MemAvailable");
}

TEST_F(MemoryLimitTest, SmallestLimitOnTheWayUpDecidesWithoutPageCache) {
  Put("/proc/self/cgroup", "0::/a/b\n");
  Put("/sys/fs/cgroup/a/b/memory.max", "max\n");
  // 700 kB anonymous here, of which 500 are ours; page cache (file) does not count.
  Put("/sys/fs/cgroup/a/memory.max", "4096000\n");
  Put("/sys/fs/cgroup/a/memory.stat", "anon 716800\nfile 3000000\nslab_unreclaimable 1000\n");
  const MemoryLimit limit = Detect();
  EXPECT_EQ(limit.bytes, 4096000 - (716800 + 1000 - 512000));
  EXPECT_NE(limit.source.find("cgroup v2 memory.max"), std::string::npos) << limit.source;
}

TEST_F(MemoryLimitTest, CgroupV1AndItsNoLimitValue) {
  Put("/proc/self/cgroup", "5:cpu:/x\n9:hugetlb,memory:/box\n");
  Put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Detect().source, "80% of MemAvailable");
  Put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2048000\n");
  EXPECT_EQ(Detect().bytes, 2048000);
}

TEST_F(MemoryLimitTest, NonsenseIsNoLimit) {
  Put("/proc/self/cgroup", "0::/../../etc\n:::\n0::\n");
  Put("/sys/fs/cgroup/memory.max", "-5\n");
  EXPECT_EQ(Detect().source, "80% of MemAvailable");
}

TEST(ProcessMemory, GrowsWithWhatIsTouchedAndPeakStays) {
  const int64_t before = ReadProcessMemory().rss_bytes;
  if (before == 0) GTEST_SKIP() << "no /proc here";
  const bool reset = ResetPeakRss();
  {
    std::vector<char> block(64 << 20, 1);
    EXPECT_GE(ReadProcessMemory().rss_bytes, before + (48 << 20)) << block[100];
  }
  EXPECT_GE(ReadProcessMemory().peak_rss_bytes, before + (48 << 20)) << "reset " << reset;
}

TEST_F(MemoryLimitTest, WhatIsMappedAndNeverTouchedIsTakenOffADataLimit) {
  Put("/proc/self/status", "VmData:\t 1500 kB\nRssAnon:\t 500 kB\n");
  EXPECT_EQ(DataLimitBytes(root_ + "/proc"), 0);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_DATA, &old), 0);
  const rlimit some{rlim_t{1} << 40, old.rlim_max};
  if (setrlimit(RLIMIT_DATA, &some) != 0) GTEST_SKIP() << "no limit can be set here";
  rlimit now{};  // an emulator may take the call and do nothing
  ASSERT_EQ(getrlimit(RLIMIT_DATA, &now), 0);
  if (now.rlim_cur != some.rlim_cur) GTEST_SKIP() << "no limit can be set here";
  EXPECT_EQ(DataLimitBytes(root_ + "/proc"), (int64_t{1} << 40) - 1000 * 1024);
  setrlimit(RLIMIT_DATA, &old);
}

TEST(MemoryLimit, SomethingIsFoundHere) { EXPECT_GT(DetectMemoryLimit().bytes, 0); }

}  // namespace
}  // namespace edgewise
