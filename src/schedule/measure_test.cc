// What measuring leaves behind, and what it says where it cannot measure.
#include "schedule/measure.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

namespace edgewise::schedule {
namespace {

namespace fs = std::filesystem;

class MeasureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::path(::testing::TempDir()) / ("edgewise-measure-" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  fs::path dir_;
};

TEST_F(MeasureTest, OfTheDisksFileNothingIsLeft) {
  const auto rates = MeasureDisk(dir_.string(), int64_t{4} << 20);
  ASSERT_TRUE(rates.ok()) << rates.status().message();
  EXPECT_GT(rates->read_gbps, 0);
  EXPECT_GT(rates->cached_read_gbps, 0);
  EXPECT_GT(rates->write_gbps, 0);
  EXPECT_TRUE(fs::is_empty(dir_));
}

TEST_F(MeasureTest, ADirectoryThatIsNotThereIsNamed) {
  const auto rates = MeasureDisk((dir_ / "none").string(), int64_t{1} << 20);
  ASSERT_FALSE(rates.ok());
  EXPECT_NE(rates.status().message().find((dir_ / "none").string()), std::string::npos);
}

TEST_F(MeasureTest, StopsWhenAsked) {
  auto ctx = ExecContext::Create({.threads = 1});
  ASSERT_TRUE(ctx.ok());
  const std::atomic<bool> stop{true};
  MeasureOptions options;
  options.stop = &stop;
  EXPECT_EQ(MeasureKernels(**ctx, options).status().code(), StatusCode::kInterrupted);
}

// Whatever the room, something is measured.
TEST_F(MeasureTest, MemoryIsMeasuredInTheRoomThatThereIs) {
  auto ctx = ExecContext::Create({.threads = 2});
  ASSERT_TRUE(ctx.ok());
  for (const int64_t room : {int64_t{0}, int64_t{1}, int64_t{8} << 20}) {
    EXPECT_GT(BareDevice(**ctx, room).memory().read_gbps, 0);
  }
}

}  // namespace
}  // namespace edgewise::schedule
