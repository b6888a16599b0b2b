#include "formats/checkpoint.h"

#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>

#include "formats/checkpoint_manifest.h"

namespace edgewise::formats {
namespace {

namespace fs = std::filesystem;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

class Checkpoints : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/checkpoint_test_" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  Status Save(int64_t step, const std::string& text = "weights") {
    EW_ASSIGN(auto writer, CheckpointWriter::Begin(env_, dir_, step, 100));
    EW_RETURN_IF_ERROR(writer->AddFile("a.bin", text));
    const auto pieces = [](WritableFile& file) {
      EW_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span("12", 2))));
      return file.Append(std::as_bytes(std::span("345", 3)));
    };
    EW_RETURN_IF_ERROR(writer->AddFile("b.bin", pieces));
    return writer->Commit({{"loss", "1.5"}}).status();
  }
  std::vector<int64_t> ValidSteps() {
    std::vector<int64_t> steps;
    const auto scan = FindCheckpoints(env_, dir_);
    EXPECT_TRUE(scan.ok()) << scan.status().message();
    for (const auto& info : scan->valid) steps.push_back(info.step);
    return steps;
  }
  std::string WhySkipped(int64_t step) {
    const auto scan = FindCheckpoints(env_, dir_);
    for (const auto& skipped : scan->skipped) {
      if (BaseName(skipped.path) == CheckpointName(step)) return skipped.reason;
    }
    return "not skipped";
  }
  std::string File(int64_t step, const std::string& name) {
    return dir_ + "/" + CheckpointName(step) + "/" + name;
  }
  void Put(const std::string& path, std::string_view contents) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;  // no need to sync
  }

  Env& env_ = PosixEnv();
  std::string dir_;
};

TEST_F(Checkpoints, RoundTrip) {
  EXPECT_TRUE(ValidSteps().empty());
  ASSERT_TRUE(Save(120).ok());
  ASSERT_TRUE(Save(90).ok());
  ASSERT_TRUE(Save(1234567).ok());
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{1234567, 120, 90}));
  EXPECT_EQ(
      env_.ListDir(dir_).value(),
      (std::vector<std::string>{"checkpoint-000090", "checkpoint-000120", "checkpoint-1234567"}));
  const auto newest = FindNewestCheckpoint(env_, dir_);
  ASSERT_EQ(newest->valid.size(), 1u);
  const CheckpointInfo& info = newest->valid[0];
  EXPECT_EQ(info.path, dir_ + "/checkpoint-1234567");
  EXPECT_EQ(info.metadata.at("loss"), "1.5");
  EXPECT_EQ(info.files.at("b.bin").bytes, 5);
  EXPECT_EQ(env_.ReadFile(info.path + "/b.bin", 100).value(), "12345");
}

TEST_F(Checkpoints, DamageIsSeenAndNamed) {
  for (int64_t step = 1; step <= 8; ++step) ASSERT_TRUE(Save(step).ok());
  Put(File(8, "a.bin"), "weightz");
  Put(File(7, "a.bin"), "weight");
  fs::remove(File(6, "b.bin"));
  fs::remove(File(5, "manifest.json"));
  std::string manifest = env_.ReadFile(File(4, "manifest.json"), 10000).value();
  manifest.replace(manifest.find("1.5"), 3, "2.5");
  Put(File(4, "manifest.json"), manifest);
  Put(File(3, "manifest.json"), "{");
  fs::rename(dir_ + "/checkpoint-000002", dir_ + "/checkpoint-000009");
  fs::create_directories(dir_ + "/checkpoint-000010.tmp-77");
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{1}));
  EXPECT_HAS(WhySkipped(9), "renamed by hand");
  EXPECT_HAS(WhySkipped(8), "checksum");
  EXPECT_HAS(WhySkipped(7), "6 bytes, the manifest says 7");
  EXPECT_HAS(WhySkipped(6), "b.bin is missing");
  EXPECT_HAS(WhySkipped(5), "not complete");
  EXPECT_HAS(WhySkipped(4), "manifest is damaged");
  EXPECT_HAS(WhySkipped(3), "JSON");
  const auto newest = FindNewestCheckpoint(env_, dir_);
  EXPECT_EQ(newest->valid[0].step, 1);
  EXPECT_EQ(newest->skipped.size(), 8u);
}

TEST(CheckpointManifest, EveryBitCounts) {
  CheckpointInfo info;
  info.step = 7;
  info.files["a.bin"] = {5, "0123456789abcdef"};
  info.metadata["loss"] = "1.5";
  const std::string good = FormatManifest(info);
  ASSERT_TRUE(ParseManifest(good).ok());
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      const auto read = ParseManifest(bad);
      if (!read.ok()) continue;
      // White space may change without harm.
      EXPECT_TRUE(std::isspace(static_cast<unsigned char>(good[i]))) << i << " " << good[i];
      EXPECT_EQ(read->metadata.at("loss"), "1.5");
    }
    // Only the newline at the end may be missing.
    EXPECT_EQ(ParseManifest(good.substr(0, i)).ok(), i + 1 == good.size()) << i;
  }
}

TEST_F(Checkpoints, AbandonedAndFailedWritesLeaveNothing) {
  {
    auto writer = CheckpointWriter::Begin(env_, dir_, 5, 0);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->AddFile("a", "x").ok());
  }
  EXPECT_TRUE(env_.ListDir(dir_)->empty());
  auto writer = CheckpointWriter::Begin(env_, dir_, 5, 0);
  EXPECT_EQ((*writer)->AddFile("a", [](WritableFile&) { return BadInput("no"); }).message(), "no");
  EXPECT_EQ((*writer)->Commit().status().code(), StatusCode::kSaveFailed);
  writer->reset();
  EXPECT_TRUE(env_.ListDir(dir_)->empty());
  for (const char* name : {"../a", "", ".hidden", "manifest.json", "a/b"}) {
    auto bad = CheckpointWriter::Begin(env_, dir_, 5, 0);
    EXPECT_EQ((*bad)->AddFile(name, "x").code(), StatusCode::kInvalidArgument) << name;
    EXPECT_FALSE((*bad)->Commit().ok());
  }
}

TEST_F(Checkpoints, TooLittleSpaceIsSaidBeforehand) {
  ASSERT_TRUE(Save(1).ok());
  const auto writer = CheckpointWriter::Begin(env_, dir_, 2, int64_t{1} << 60);
  EXPECT_EQ(writer.status().code(), StatusCode::kSaveFailed);
  EXPECT_HAS(writer.status().message(), "bytes free");
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{1}));
}

TEST_F(Checkpoints, TheSameStepIsReplaced) {
  ASSERT_TRUE(Save(3, "first").ok());
  ASSERT_TRUE(Save(3, "second").ok());
  EXPECT_EQ(env_.ReadFile(File(3, "a.bin"), 100).value(), "second");
  EXPECT_EQ(env_.ListDir(dir_)->size(), 1u);
}

TEST_F(Checkpoints, CleaningRepairsAReplacementCutShort) {
  ASSERT_TRUE(Save(3).ok());
  ASSERT_TRUE(Save(4).ok());
  fs::rename(dir_ + "/checkpoint-000004", dir_ + "/checkpoint-000004.old-9");
  fs::create_directories(dir_ + "/checkpoint-000004.tmp-9");
  fs::create_directories(dir_ + "/my-notes.tmp-9");
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{4, 3}));  // found even before the repair
  ASSERT_TRUE(CleanCheckpoints(env_, dir_).ok());
  EXPECT_EQ(env_.ListDir(dir_).value(),
            (std::vector<std::string>{"checkpoint-000003", "checkpoint-000004", "my-notes.tmp-9"}));
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{4, 3}));
  // A finished replacement wins over what it replaced.
  fs::copy(dir_ + "/checkpoint-000003", dir_ + "/checkpoint-000003.old-9");
  ASSERT_TRUE(CleanCheckpoints(env_, dir_).ok());
  EXPECT_FALSE(fs::exists(dir_ + "/checkpoint-000003.old-9"));
  EXPECT_TRUE(CleanCheckpoints(env_, dir_ + "/absent").ok());
}

TEST_F(Checkpoints, PruningKeepsTheBestAndTheNewest) {
  for (int64_t step = 1; step <= 6; ++step) ASSERT_TRUE(Save(step).ok());
  EXPECT_FALSE(PruneCheckpoints(env_, dir_, 0, {}).ok());
  EXPECT_EQ(PruneCheckpoints(env_, dir_, 3, {CheckpointName(2)})->size(), 3u);
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{6, 5, 2}));
  ASSERT_TRUE(PruneCheckpoints(env_, dir_, 1, {CheckpointName(2)}).ok());
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{6, 2}));
  // The newest is damaged without a change of size: the older one must survive.
  Put(File(6, "a.bin"), "weightz");
  ASSERT_TRUE(PruneCheckpoints(env_, dir_, 1, {}).ok());
  EXPECT_EQ(ValidSteps(), (std::vector<int64_t>{2}));
}

}  // namespace
}  // namespace edgewise::formats
