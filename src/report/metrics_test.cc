#include "report/metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "io/env_faulty.h"
#include "io/json.h"

namespace edgewise::report {
namespace {

namespace fs = std::filesystem;

class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ =
        (fs::temp_directory_path() / ("edgewise-metrics-" + std::to_string(::getpid()))).string();
    fs::remove(path_);
  }
  void TearDown() override { fs::remove(path_); }
  std::string Text() {
    std::ifstream in(path_);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  std::unique_ptr<MetricsFile> Open(int64_t keep) {
    auto file = MetricsFile::Open(PosixEnv(), path_, keep);
    EXPECT_TRUE(file.ok()) << file.status().message();
    return file.ok() ? std::move(*file) : nullptr;
  }
  std::string path_;
};

TEST_F(MetricsTest, LinesAreJsonWithSchemaAndStep) {
  auto file = Open(-1);
  ASSERT_TRUE(file->Append(StepEvent{.step = 3, .loss = 1.5, .rss_bytes = 77}).ok());
  ASSERT_TRUE(
      file->Append(ValidEvent{.step = 3, .loss = 2.5, .best = true, .exits = {3, 2.5}}).ok());
  ASSERT_TRUE(
      file->Append(StepEvent{.step = 4, .loss = std::numeric_limits<double>::quiet_NaN()}).ok());
  ASSERT_TRUE(
      file->Append(StepEvent{.step = 5, .memory = {.weights = 8, .scratch = 2}, .exit = 1}).ok());
  std::istringstream in(Text());
  std::string line;
  std::vector<Json> all;
  while (std::getline(in, line)) all.push_back(*ParseJson(line));
  ASSERT_EQ(all.size(), 4u);
  for (const Json& j : all) EXPECT_EQ(j["schema"], 1);
  EXPECT_EQ(all[0]["event"], "step");
  EXPECT_EQ(all[0]["rss_bytes"], 77);
  EXPECT_EQ(all[1]["valid_loss"], 2.5);
  EXPECT_EQ(all[1]["exits"], Json({3.0, 2.5}));
  EXPECT_TRUE(all[2]["loss"].is_null());
  EXPECT_FALSE(all[2].contains("memory") || all[2].contains("exit"));
  EXPECT_EQ(all[3]["memory"]["weights"], 8);
  EXPECT_EQ(all[3]["memory"]["scratch"], 2);
  EXPECT_EQ(all[3]["exit"], 1);
}

TEST_F(MetricsTest, ResumeDropsLaterStepsAndATornLine) {
  {
    auto file = Open(-1);
    for (int s = 1; s <= 5; ++s) ASSERT_TRUE(file->Append(StepEvent{.step = s}).ok());
  }
  std::ofstream(path_, std::ios::app) << "{\"schema\":1,\"ev";
  Open(3);
  const std::string text = Text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_EQ(text.find("\"step\":4"), std::string::npos);
  EXPECT_EQ(text.back(), '\n');
}

TEST_F(MetricsTest, ForeignFileIsAnErrorAndStays) {
  std::ofstream(path_) << "hello\nworld\nagain\n";
  EXPECT_FALSE(MetricsFile::Open(PosixEnv(), path_, 3).ok());
  EXPECT_EQ(Text(), "hello\nworld\nagain\n");
}

TEST_F(MetricsTest, FullDiskLosesLinesButNeverTearsOne) {
  FaultyEnv env(PosixEnv());
  auto file = MetricsFile::Open(env, path_, -1);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Append(StepEvent{.step = 1}).ok());
  env.SetPlan({.fail_at = 0, .persistent = true, .torn_writes = true});
  EXPECT_FALSE((*file)->Append(StepEvent{.step = 2}).ok());
  EXPECT_FALSE((*file)->Append(StepEvent{.step = 3}).ok());
  env.SetPlan({});
  ASSERT_TRUE((*file)->Append(StepEvent{.step = 4}).ok());
  std::istringstream in(Text());
  std::vector<int64_t> steps;
  for (std::string line; std::getline(in, line);) {
    Result<Json> j = ParseJson(line);
    ASSERT_TRUE(j.ok()) << line;
    steps.push_back((*j)["step"].get<int64_t>());
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 4}));
}

TEST_F(MetricsTest, NewRunStartsEmpty) {
  std::ofstream(path_) << "old\n";
  Open(-1);
  EXPECT_EQ(Text(), "");
}

}  // namespace
}  // namespace edgewise::report
