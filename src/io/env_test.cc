#include "io/env.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/aligned_buffer.h"
#include "io/atomic_file.h"
#include "io/env_faulty.h"
#include "io/env_mem.h"

namespace edgewise {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// What every Env must do alike.
void CheckContract(Env& env, const std::string& root) {
  ASSERT_TRUE(env.CreateDirs(root + "/a/b").ok());
  EXPECT_TRUE(env.IsDirectory(root + "/a"));
  EXPECT_FALSE(env.Exists(root + "/a/f"));
  EXPECT_EQ(env.ReadFile(root + "/a/f", 10).status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(env.NewWritableFile(root + "/none/f").ok());
  {
    auto file = env.NewWritableFile(root + "/a/f");
    ASSERT_TRUE(file.ok()) << file.status().message();
    ASSERT_TRUE((*file)->Append(Bytes("hello ")).ok());
    ASSERT_TRUE((*file)->Append(Bytes("world")).ok());
    ASSERT_TRUE((*file)->Sync().ok());
    ASSERT_TRUE((*file)->Close().ok());
  }
  EXPECT_EQ(env.ReadFile(root + "/a/f", 100).value(), "hello world");
  EXPECT_EQ(env.ReadFile(root + "/a/f", 5).status().code(), StatusCode::kBadInput);
  EXPECT_EQ(env.FileSize(root + "/a/f").value(), 11);
  {
    auto file = env.NewAppendableFile(root + "/a/f");
    ASSERT_TRUE((*file)->Append(Bytes("!")).ok());
  }
  auto reader = env.NewReadableFile(root + "/a/f");
  ASSERT_TRUE(reader.ok());
  std::string text;
  std::byte buffer[5];
  for (;;) {
    const auto n = (*reader)->Read(buffer);
    ASSERT_TRUE(n.ok());
    if (*n == 0) break;
    text.append(reinterpret_cast<const char*>(buffer), *n);
  }
  EXPECT_EQ(text, "hello world!");
  ASSERT_TRUE(env.Truncate(root + "/a/f", 4).ok());
  EXPECT_EQ(env.ReadFile(root + "/a/f", 100).value(), "hell");
  ASSERT_TRUE(env.Rename(root + "/a/f", root + "/a/b/g").ok());
  EXPECT_EQ(env.ListDir(root + "/a").value(), (std::vector<std::string>{"b"}));
  ASSERT_TRUE(env.CreateDirs(root + "/c").ok());
  EXPECT_FALSE(env.Rename(root + "/c", root + "/a/b").ok());  // not empty
  ASSERT_TRUE(env.Rename(root + "/a/b", root + "/c").ok());   // over an empty directory
  EXPECT_EQ(env.ReadFile(root + "/c/g", 100).value(), "hell");
  ASSERT_TRUE(env.SyncDir(root).ok());
  ASSERT_TRUE(env.RemoveAll(root + "/c").ok());
  ASSERT_TRUE(env.RemoveAll(root + "/c").ok());
  EXPECT_FALSE(env.Exists(root + "/c/g"));
  EXPECT_GT(env.FreeBytes(root).value(), 0);
}

TEST(Env, PosixKeepsTheContract) {
  const std::string root = ::testing::TempDir() + "/env_test";
  std::filesystem::remove_all(root);
  CheckContract(PosixEnv(), root);
  std::filesystem::remove_all(root);
}

TEST(Env, MemoryKeepsTheContract) {
  MemEnv env;
  CheckContract(env, "/root");
  FaultyEnv faulty(env);
  CheckContract(faulty, "/other");
  EXPECT_GT(faulty.operations(), 10);
}

TEST(MemEnv, CrashForgetsWhatWasNotSynced) {
  MemEnv env;
  ASSERT_TRUE(env.CreateDirs("/d").ok());
  ASSERT_TRUE(env.SyncDir("/").ok());
  ASSERT_TRUE(WriteFileAtomic(env, "/d/kept", "old").ok());
  auto file = env.NewWritableFile("/d/kept");  // truncated and rewritten, never synced
  ASSERT_TRUE((*file)->Append(Bytes("newer")).ok());
  auto unnamed = env.NewWritableFile("/d/unnamed");  // synced, but its name is not
  ASSERT_TRUE((*unnamed)->Append(Bytes("x")).ok());
  ASSERT_TRUE((*unnamed)->Sync().ok());
  env.Crash(MemEnv::CrashMode::kLoseUnsynced);
  EXPECT_EQ(env.ListDir("/d").value(), (std::vector<std::string>{"kept"}));
  EXPECT_EQ(env.ReadFile("/d/kept", 100).value(), "old");
}

TEST(MemEnv, CapacityIsAFullDisk) {
  MemEnv env;
  env.SetCapacity(10);
  auto file = env.NewWritableFile("/f");
  ASSERT_TRUE((*file)->Append(Bytes("12345678")).ok());
  const Status status = (*file)->Append(Bytes("abcd"));
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_EQ(env.ReadFile("/f", 100).value(), "12345678ab");
  EXPECT_EQ(env.FreeBytes("/").value(), 0);
  EXPECT_EQ(env.UsedBytes(), 10);
}

// Whatever operation fails, and however little survives the crash after it, the file holds the old
// or the new text, and the new one if the write said that it was done.
TEST(WriteFileAtomic, OldOrNewAtEveryPointOfFailure) {
  for (const bool persistent : {false, true}) {
    for (int64_t k = 0;; ++k) {
      SCOPED_TRACE(k);
      bool failed = false;
      for (uint64_t seed = 0; seed < 10; ++seed) {
        MemEnv env;
        FaultyEnv faulty(env);
        ASSERT_TRUE(env.CreateDirs("/d").ok());
        ASSERT_TRUE(env.SyncDir("/").ok());
        ASSERT_TRUE(WriteFileAtomic(env, "/d/f", "old").ok());
        faulty.SetPlan({.fail_at = k, .persistent = persistent, .torn_writes = true});
        const Status status = WriteFileAtomic(faulty, "/d/f", "the new text");
        failed = faulty.failures() > 0;
        EXPECT_EQ(status.ok(), !failed);
        std::string now = env.ReadFile("/d/f", 100).value();
        EXPECT_TRUE(now == "old" || now == "the new text") << now;
        env.Crash(seed == 0 ? MemEnv::CrashMode::kLoseUnsynced : MemEnv::CrashMode::kArbitrary,
                  seed);
        now = env.ReadFile("/d/f", 100).value();
        EXPECT_TRUE(now == "the new text" || (failed && now == "old")) << now;
      }
      if (!failed) break;
    }
  }
}

TEST(Env, KnowsFileSystemsInMemory) {
  EXPECT_FALSE(PosixEnv().IsInMemory("/proc"));
  EXPECT_FALSE(PosixEnv().IsInMemory("/nowhere at all"));
  std::ifstream mounts("/proc/self/mounts");
  const std::string all(std::istreambuf_iterator<char>(mounts), {});
  if (all.find(" /dev/shm tmpfs ") == std::string::npos) GTEST_SKIP() << "/dev/shm is no tmpfs";
  EXPECT_TRUE(PosixEnv().IsInMemory("/dev/shm"));
}

TEST(ScratchFile, KeepsWhatIsWrittenAndLeavesNoName) {
  const std::string dir = JoinPath(::testing::TempDir(), "edgewise-scratch-test");
  ASSERT_TRUE(PosixEnv().CreateDirs(dir).ok());
  constexpr int64_t kBlock = ScratchFile::kAlignment;
  FaultyEnv env(PosixEnv());
  auto file = env.NewScratchFile(dir, 8 * kBlock);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_TRUE(PosixEnv().ListDir(dir).value().empty());
  AlignedBuffer buffer(size_t{1} << 20);
  const auto blocks = [&](int64_t at, int64_t count) {
    return std::span(buffer.as<std::byte>() + at * kBlock, static_cast<size_t>(count * kBlock));
  };
  std::ranges::fill(blocks(0, 2), std::byte{1});
  std::ranges::fill(blocks(2, 1), std::byte{2});
  ASSERT_TRUE((*file)->Write(5 * kBlock, blocks(0, 2)).ok());
  ASSERT_TRUE((*file)->Write(0, blocks(2, 1)).ok());
  ASSERT_TRUE((*file)->Read(6 * kBlock, blocks(8, 1)).ok());
  ASSERT_TRUE((*file)->Read(0, blocks(9, 1)).ok());
  EXPECT_EQ(buffer.as<std::byte>()[8 * kBlock], std::byte{1});
  EXPECT_EQ(buffer.as<std::byte>()[10 * kBlock - 1], std::byte{2});
  // Faults are passed on.
  env.SetPlan({.fail_at = 0, .count_reads = true});
  EXPECT_EQ((*file)->Read(0, blocks(0, 1)).code(), StatusCode::kIo);
  env.SetPlan({.fail_at = 0});
  EXPECT_EQ((*file)->Write(0, blocks(0, 1)).code(), StatusCode::kIo);
  env.SetPlan({.fail_at = 0});
  EXPECT_FALSE(env.NewScratchFile(dir, kBlock).ok());
  env.SetPlan({});
  // More than the file system has.
  const int64_t free = PosixEnv().FreeBytes(dir).value();
  const auto large = env.NewScratchFile(dir, (2 * free) / kBlock * kBlock);
  EXPECT_EQ(large.status().code(), StatusCode::kIo);
  EXPECT_EQ(MemEnv().NewScratchFile("/", kBlock).status().code(), StatusCode::kUnsupported);
  ASSERT_TRUE(PosixEnv().RemoveAll(dir).ok());
}

}  // namespace
}  // namespace edgewise
