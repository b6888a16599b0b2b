// A checkpoint is written while every operation in turn fails or is the last before a power cut;
// what was saved before must always be found again.
#include <gtest/gtest.h>

#include "formats/checkpoint.h"
#include "io/env_faulty.h"
#include "io/env_mem.h"

namespace edgewise::formats {
namespace {

constexpr char kDir[] = "/run";

Status Save(Env& env, int64_t step, char fill) {
  EW_ASSIGN(auto writer, CheckpointWriter::Begin(env, kDir, step, 1000));
  EW_RETURN_IF_ERROR(writer->AddFile("adapter", std::string(300, fill)));
  EW_RETURN_IF_ERROR(writer->AddFile("optimizer", [&](WritableFile& file) {
    const std::string piece(100, fill);
    for (int i = 0; i < 3; ++i) {
      if (Status s = file.Append(std::as_bytes(std::span(piece))); !s.ok()) return s;
    }
    return Status::Ok();
  }));
  return writer->Commit().status();
}

// A disk with durable checkpoints 1 and 2.
void Prepare(MemEnv& env) {
  ASSERT_TRUE(env.CreateDirs(kDir).ok());
  ASSERT_TRUE(env.SyncDir("/").ok());
  ASSERT_TRUE(Save(env, 1, 'a').ok());
  ASSERT_TRUE(Save(env, 2, 'b').ok());
}

int64_t NewestStep(Env& env) {
  const auto scan = FindNewestCheckpoint(env, kDir);
  EXPECT_TRUE(scan.ok()) << scan.status().message();
  return scan.ok() && !scan->valid.empty() ? scan->valid[0].step : -1;
}

char FillOf(Env& env, int64_t step) {
  const auto scan = FindCheckpoints(env, kDir);
  for (const auto& info : scan->valid) {
    if (info.step == step) return env.ReadFile(info.path + "/adapter", 1000).value()[0];
  }
  return '?';
}

void CheckAfterwards(MemEnv& env, int64_t new_step, bool saved, char old_fill) {
  // Older checkpoints are whole; the new one is whole or absent, and there if it was reported.
  EXPECT_EQ(FillOf(env, 1), 'a');
  const char now = FillOf(env, new_step);
  EXPECT_TRUE(now == 'n' || (!saved && now == old_fill)) << now;
  EXPECT_GE(NewestStep(env), 2);
  // The next start repairs what is left, and saving works again.
  ASSERT_TRUE(CleanCheckpoints(env, kDir).ok());
  EXPECT_GE(NewestStep(env), 2);
  const std::vector<std::string> names = env.ListDir(kDir).value();
  for (const std::string& name : names) {
    EXPECT_EQ(name.find(".tmp-"), std::string::npos) << name;
    EXPECT_EQ(name.find(".old-"), std::string::npos) << name;
  }
  ASSERT_TRUE(Save(env, 9, 'z').ok());
  EXPECT_EQ(NewestStep(env), 9);
}

// Saving step 3 anew, and saving step 2 over the one that is there.
class CheckpointFaults : public ::testing::TestWithParam<int64_t> {};

TEST_P(CheckpointFaults, EveryOperationFails) {
  const char old_fill = GetParam() == 2 ? 'b' : '?';
  for (const bool persistent : {false, true}) {
    for (int64_t k = 0;; ++k) {
      SCOPED_TRACE(::testing::Message() << "operation " << k << " persistent " << persistent);
      MemEnv env;
      Prepare(env);
      FaultyEnv faulty(env);
      faulty.SetPlan({.fail_at = k, .persistent = persistent, .torn_writes = true});
      const Status status = Save(faulty, GetParam(), 'n');
      EXPECT_TRUE(status.ok() || status.code() == StatusCode::kSaveFailed) << status.message();
      const bool failed = faulty.failures() > 0;
      CheckAfterwards(env, GetParam(), status.ok(), old_fill);
      if (!failed) {
        EXPECT_GT(k, 10);
        break;
      }
    }
  }
}

TEST_P(CheckpointFaults, PowerCutAfterEveryOperation) {
  const char old_fill = GetParam() == 2 ? 'b' : '?';
  for (int64_t k = 0;; ++k) {
    bool failed = false;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      SCOPED_TRACE(::testing::Message() << "operation " << k << " seed " << seed);
      MemEnv env;
      Prepare(env);
      FaultyEnv faulty(env);
      faulty.SetPlan({.fail_at = k, .persistent = true, .torn_writes = true});
      const Status status = Save(faulty, GetParam(), 'n');
      failed = faulty.failures() > 0;
      env.Crash(seed == 0 ? MemEnv::CrashMode::kLoseUnsynced : MemEnv::CrashMode::kArbitrary, seed);
      CheckAfterwards(env, GetParam(), status.ok(), old_fill);
    }
    if (!failed) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, CheckpointFaults, ::testing::Values(3, 2));

TEST(CheckpointFaults, TheFirstCheckpointOfANewDirectoryIsDurable) {
  MemEnv env;
  auto writer = CheckpointWriter::Begin(env, "/home/runs/one/", 1, 0);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  ASSERT_TRUE((*writer)->AddFile("a", "x").ok());
  ASSERT_TRUE((*writer)->Commit().ok());
  env.Crash(MemEnv::CrashMode::kLoseUnsynced);
  EXPECT_EQ(FindNewestCheckpoint(env, "/home/runs/one")->valid.size(), 1u);
}

TEST(CheckpointFaults, FullDiskAtEverySize) {
  for (int64_t room = 0; room < 1400; room += 13) {
    SCOPED_TRACE(room);
    MemEnv env;
    Prepare(env);
    const int64_t used = env.UsedBytes();
    env.SetCapacity(used + room);
    const Status status = Save(env, 3, 'n');
    if (!status.ok()) {
      EXPECT_EQ(status.code(), StatusCode::kSaveFailed);
      EXPECT_EQ(env.UsedBytes(), used);  // the space is given back
      EXPECT_EQ(NewestStep(env), 2);
    } else {
      EXPECT_EQ(NewestStep(env), 3);
    }
  }
}

TEST(CheckpointFaults, PruningNeverLosesTheNewest) {
  for (int64_t k = 0;; ++k) {
    bool failed = false;
    for (uint64_t seed = 0; seed < 10; ++seed) {
      MemEnv env;
      Prepare(env);
      ASSERT_TRUE(Save(env, 3, 'c').ok());
      FaultyEnv faulty(env);
      faulty.SetPlan({.fail_at = k, .persistent = true});
      const auto removed = PruneCheckpoints(faulty, kDir, 1, {});
      failed = faulty.failures() > 0;
      EXPECT_EQ(removed.ok(), !failed);
      env.Crash(MemEnv::CrashMode::kArbitrary, seed);
      EXPECT_EQ(NewestStep(env), 3);
      EXPECT_EQ(FillOf(env, 3), 'c');
    }
    if (!failed) break;
  }
}

}  // namespace
}  // namespace edgewise::formats
