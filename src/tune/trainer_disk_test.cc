#include "tune/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "io/env_faulty.h"
#include "io/json.h"
#include "testing/trainer_fixture.h"

namespace edgewise::tune {
namespace {

namespace fs = std::filesystem;
using testing::FakeMethod;
using testing::TrainerTest;

TEST_F(TrainerTest, AnotherRunIsRefusedByName) {
  options_.max_steps = 4;
  options_.save_every = 2;
  ASSERT_TRUE(Run().ok());
  options_.lr.lr = 0.25;
  fingerprint_ = "base-2";
  const Status status = Run();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  for (const char* word : {"learning_rate: 0.05 there, 0.25 now", "model: base-1 there, base-2"}) {
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  }
  options_.resume = ResumeMode::kNever;
  EXPECT_EQ(Run().code(), StatusCode::kInvalidArgument);
  options_.overwrite = true;
  EXPECT_TRUE(Run().ok());
}

TEST_F(TrainerTest, WhatWasLearnedBeforeAMethodFailsIsKept) {
  ASSERT_TRUE(Run().ok());
  const std::vector<float> want = values_;
  fs::remove_all(Dir("run"));
  FakeMethod method;
  method.fails = [](const MicroContext& c) { return c.step == 7 && c.micro == 1; };
  const Status status = Run(method);
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_NE(status.message().find("the disk failed after step 7 of 12"), std::string::npos)
      << status.message();
  EXPECT_EQ(Checkpoints(), (std::vector<std::string>{formats::CheckpointName(7)}));
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(result_.resumed_from, 7);
  EXPECT_EQ(values_, want);
}

// How micro-batches are cut belongs to the run, whose steps stay the same but for the order of
// sums.
TEST_F(TrainerTest, MicroBatchesThatAreCutLearnTheSame) {
  validate_ = true;
  train_.document_tokens = valid_.document_tokens = 4;
  ASSERT_TRUE(Run().ok());
  const std::vector<float> whole = values_;
  const auto loss = result_.state.best_loss;
  const int64_t tokens = result_.state.tokens;
  fs::remove_all(Dir("run"));
  EXPECT_EQ(RecordedSplit(PosixEnv(), options_).value(), -1);
  EXPECT_EQ(RecordedWindows(PosixEnv(), options_).value(), -1);
  options_.split_tokens = 8;
  options_.save_every = 1;
  std::vector<int64_t> micros;
  {
    FakeMethod method;
    method.on_micro = [&](const MicroContext& c) {
      if (c.step == 3) micros.push_back(c.micro);
    };
    method.fails = [](const MicroContext& c) { return c.step == 5; };
    EXPECT_EQ(Run(method).code(), StatusCode::kIo);
  }
  std::vector<int64_t> want;
  for (int64_t i = 0; i < options_.grad_accum * ((train_.max_tokens() + 7) / 8); ++i) {
    want.push_back(i);
  }
  EXPECT_EQ(micros, want);
  EXPECT_EQ(RecordedSplit(PosixEnv(), options_).value(), 8);
  EXPECT_EQ(RecordedWindows(PosixEnv(), options_).value(), 0);
  options_.split_tokens = 0;
  EXPECT_NE(Run().message().find("split_tokens"), std::string::npos);
  options_.split_tokens = 8;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(result_.resumed_from, 5);
  EXPECT_EQ(result_.state.tokens, tokens);
  const std::vector<float> resumed = values_;
  const auto cut_loss = result_.state.best_loss;
  fs::remove_all(Dir("run"));
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(values_, resumed);
  // The method sums token by token: not even the order of its sums differs, but that of losses.
  EXPECT_EQ(values_, whole);
  ASSERT_TRUE(loss && cut_loss);
  EXPECT_NEAR(*cut_loss, *loss, 1e-12);
}

TEST_F(TrainerTest, ResumeNeedsACheckpointWhenRequired) {
  options_.resume = ResumeMode::kRequired;
  EXPECT_EQ(Run().code(), StatusCode::kNotFound);
}

TEST_F(TrainerTest, OneProcessAtATime) {
  auto lock = RunLock::Acquire(PosixEnv(), Dir("run"));
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(Run().code(), StatusCode::kInvalidArgument);
  // The caller's own lock is no obstacle.
  lock_ = lock->get();
  EXPECT_TRUE(Run().ok());
  lock_ = nullptr;
  lock->reset();
  EXPECT_TRUE(Run().ok());
}

TEST_F(TrainerTest, AnEarlierRunIsKnownBeforeTheStart) {
  options_.resume = ResumeMode::kNever;
  EXPECT_TRUE(CheckRunDirectory(PosixEnv(), options_).ok());
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(CheckRunDirectory(PosixEnv(), options_).code(), StatusCode::kInvalidArgument);
  options_.overwrite = true;
  EXPECT_TRUE(CheckRunDirectory(PosixEnv(), options_).ok());
  options_.overwrite = false;
  options_.resume = ResumeMode::kAuto;
  EXPECT_TRUE(CheckRunDirectory(PosixEnv(), options_).ok());
}

TEST_F(TrainerTest, ParametersThatAreNotFiniteNeverReplaceACheckpoint) {
  options_.save_every = 2;
  FakeMethod method;
  on_event_ = [&](const report::Event& e) {
    const auto* step = std::get_if<report::StepEvent>(&e);
    if (step != nullptr && step->step == 5) {
      method.values()[1] = std::numeric_limits<float>::infinity();
    }
  };
  const Status status = Run(method);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(Checkpoints().back(), "checkpoint-000004");
}

TEST_F(TrainerTest, BestIsKeptAndExported) {
  validate_ = true;
  options_.max_steps = 40;
  options_.eval_every = 5;
  options_.lr = {.kind = LrKind::kConstant, .lr = 0.02, .warmup_steps = 0};
  FakeMethod method;
  std::vector<float> at_best;
  // From step 21 on the run is spoiled.
  on_event_ = [&](const report::Event& e) {
    if (const auto* valid = std::get_if<report::ValidEvent>(&e); valid != nullptr && valid->best) {
      at_best = method.values();
    }
    if (const auto* step = std::get_if<report::StepEvent>(&e); step != nullptr && step->step > 20) {
      method.values()[0] += 5;
    }
  };
  ASSERT_TRUE(Run(method).ok());
  EXPECT_EQ(result_.state.best_step, 20);
  EXPECT_EQ(result_.exported, "best");
  EXPECT_EQ(result_.exported_step, 20);
  EXPECT_EQ(method.values(), at_best);
  const auto left = Checkpoints();
  ASSERT_EQ(left.size(), 2u);  // the limit: best and last
  EXPECT_EQ(left[0], "checkpoint-000020");
  EXPECT_EQ(left[1], "checkpoint-000040");
  FakeMethod exported;
  ASSERT_TRUE(exported.Restore(Dir("run")).ok());
  EXPECT_EQ(exported.values(), at_best);
}

TEST_F(TrainerTest, CheckpointOnRequest) {
  on_event_ = [&](const report::Event& e) {
    const auto* step = std::get_if<report::StepEvent>(&e);
    if (step != nullptr && step->step == 3) save_request_ = true;
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Checkpoints()[0], "checkpoint-000003");
  EXPECT_FALSE(save_request_);
}

TEST_F(TrainerTest, FullDiskWarnsAndRetriesAtTheNextInterval) {
  options_.save_every = 3;
  FaultyEnv env(PosixEnv());
  on_event_ = [&](const report::Event& e) {
    const auto* step = std::get_if<report::StepEvent>(&e);
    if (step == nullptr) return;
    if (step->step == 6) env.SetPlan({.fail_at = 0, .persistent = true, .torn_writes = true});
    if (step->step == 10) env.SetPlan({});
  };
  FakeMethod method;
  ASSERT_TRUE(Run(method, env).ok());
  EXPECT_GE(Events<report::WarningEvent>().size(), 2u);
  const auto left = Checkpoints();
  EXPECT_EQ(left.front(), "checkpoint-000003");
  EXPECT_EQ(left.back(), "checkpoint-000012");
  const auto saves = Events<report::SaveEvent>();
  ASSERT_EQ(saves.size(), 4u);
  EXPECT_TRUE(!saves[1].error.empty() && !saves[2].error.empty() && saves[3].error.empty());
}

TEST_F(TrainerTest, FullDiskAtTheEndIsASaveFailure) {
  options_.save_every = 3;
  FaultyEnv env(PosixEnv());
  on_event_ = [&](const report::Event& e) {
    const auto* step = std::get_if<report::StepEvent>(&e);
    if (step != nullptr && step->step == 7) {
      env.SetPlan({.fail_at = 0, .persistent = true, .torn_writes = true});
    }
  };
  FakeMethod method;
  const Status status = Run(method, env);
  EXPECT_EQ(status.code(), StatusCode::kSaveFailed) << status.message();
  // What was good stays good, and the run can be finished from it.
  env.SetPlan({});
  on_event_ = nullptr;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(result_.resumed_from, 6);
  EXPECT_EQ(values_, method.values());
}

TEST_F(TrainerTest, AnySingleFaultLosesNothing) {
  options_.max_steps = 3;
  options_.save_every = 1;
  options_.save_total_limit = 1;
  FaultyEnv env(PosixEnv());
  FakeMethod clean;
  ASSERT_TRUE(Run(clean, env).ok());
  const int64_t operations = env.operations();
  ASSERT_GT(operations, 50);
  const std::string expected = Text(Dir("run") + "/table.safetensors");
  for (int64_t k = 0; k < operations; ++k) {
    fs::remove_all(Dir("run"));
    FaultyEnv faulty(PosixEnv());
    faulty.SetPlan({.fail_at = k, .torn_writes = true});
    FakeMethod method;
    const Status first = Run(method, faulty);
    if (!first.ok()) {
      EXPECT_TRUE(first.code() == StatusCode::kIo || first.code() == StatusCode::kSaveFailed)
          << k << ": " << first.message();
    }
    const Status second = Run();
    ASSERT_TRUE(second.ok()) << "operation " << k << ": " << second.message();
    EXPECT_TRUE(Text(Dir("run") + "/table.safetensors") == expected) << "operation " << k;
  }
}

TEST_F(TrainerTest, DamagedCheckpointIsPassedOverAloud) {
  options_.save_every = 3;
  ASSERT_TRUE(Run().ok());
  const std::vector<float> expected = values_;
  fs::remove_all(Dir("run"));
  on_event_ = [&](const report::Event& e) {
    const auto* step = std::get_if<report::StepEvent>(&e);
    stop_ = step != nullptr && step->step == 7;
  };
  ASSERT_EQ(Run().code(), StatusCode::kInterrupted);
  stop_ = false;
  on_event_ = nullptr;
  events_.clear();
  ASSERT_EQ(Checkpoints().back(), "checkpoint-000007");
  std::fstream(Dir("run") + "/checkpoints/checkpoint-000007/optimizer.safetensors",
               std::ios::in | std::ios::out | std::ios::binary)
      .seekp(-3, std::ios::end)
      .put('x');
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(result_.resumed_from, 6);
  ASSERT_FALSE(Events<report::WarningEvent>().empty());
  EXPECT_NE(Events<report::WarningEvent>()[0].message.find("checkpoint-000007"), std::string::npos);
  EXPECT_EQ(values_, expected);
}

TEST_F(TrainerTest, ResumesFromANamedCheckpoint) {
  options_.save_every = 4;
  options_.save_total_limit = 9;
  ASSERT_TRUE(Run().ok());
  const std::vector<float> expected = values_;
  options_.resume_from = Dir("run") + "/checkpoints/checkpoint-000004";
  options_.run_dir = Dir("other");
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(result_.resumed_from, 4);
  EXPECT_EQ(values_, expected);
}

TEST_F(TrainerTest, ModelCardAndRunFileTellWhatItIs) {
  validate_ = true;
  FakeMethod method;
  TrainInputs inputs = Inputs();
  inputs.base_path = "models/\"odd\"\nname";
  inputs.extra_json = R"({"data_files": ["a.jsonl"], "steps": "never overwritten"})";
  Trainer trainer(*ctx_, PosixEnv(), method, options_, inputs);
  ASSERT_TRUE(trainer.Run().ok());
  const std::string card = Text(Dir("run") + "/README.md");
  EXPECT_EQ(card.rfind("---\nbase_model: \"models/ odd  name\"\n", 0), 0u) << card;
  EXPECT_NE(card.find("validation loss before"), std::string::npos);
  const Json run = *ReadJsonFile(Dir("run") + "/edgewise.json");
  EXPECT_EQ(run["data_files"][0], "a.jsonl");
  EXPECT_EQ(run["steps"], 12);
}

}  // namespace
}  // namespace edgewise::tune
