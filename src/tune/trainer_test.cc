#include "tune/trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "io/env_faulty.h"
#include "io/json.h"
#include "testing/paths.h"
#include "tune/fake_method_test_util.h"

namespace edgewise::tune {
namespace {

namespace fs = std::filesystem;
using testing::FakeMethod;
using testing::FakeSource;

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = fs::path(edgewise::testing::TempRoot()) /
            ("edgewise-trainer-" + std::to_string(::getpid()) + "-" + info->name());
    fs::remove_all(root_);
    auto ctx = ExecContext::Create({.threads = 1});
    ASSERT_TRUE(ctx.ok());
    ctx_ = std::move(*ctx);
    options_.run_dir = Dir("run");
    options_.max_steps = 12;
    options_.lr = {.lr = 0.05, .warmup_steps = 2};
    options_.grad_accum = 2;
    options_.resume = ResumeMode::kAuto;
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string Dir(const char* name) { return (root_ / name).string(); }
  TrainInputs Inputs() {
    return {.train = &train_,
            .valid = validate_ ? &valid_ : nullptr,
            .base_path = "base",
            .base_fingerprint = fingerprint_,
            .version = "test",
            .extra_json = ""};
  }
  // One process: everything but the directory is new.
  Status Run(FakeMethod& method, Env& env = PosixEnv()) {
    TrainHooks hooks;
    hooks.stop = &stop_;
    hooks.save_request = &save_request_;
    hooks.on_event = [this](const report::Event& e) {
      events_.push_back(e);
      if (on_event_) on_event_(e);
    };
    Trainer trainer(*ctx_, env, method, options_, Inputs(), hooks);
    Status status = trainer.Run();
    result_ = trainer.result();
    return status;
  }
  Status Run() {
    FakeMethod method;
    Status status = Run(method);
    values_ = method.values();
    return status;
  }
  template <typename E>
  std::vector<E> Events() const {
    std::vector<E> out;
    for (const report::Event& e : events_) {
      if (const auto* one = std::get_if<E>(&e)) out.push_back(*one);
    }
    return out;
  }
  static std::string Text(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  std::vector<std::string> Checkpoints() {
    auto names = PosixEnv().ListDir(Dir("run") + "/checkpoints");
    return names.ok() ? *names : std::vector<std::string>();
  }

  fs::path root_;
  std::unique_ptr<ExecContext> ctx_;
  TrainOptions options_;
  FakeSource train_{11, 7, 16}, valid_{12, 3, 16};
  bool validate_ = false;
  std::string fingerprint_ = "base-1";
  std::atomic<bool> stop_{false}, save_request_{false};
  std::function<void(const report::Event&)> on_event_;
  std::vector<report::Event> events_;
  std::vector<float> values_;
  TrainResult result_;
};

TEST_F(TrainerTest, LossFallsAndTheDirectoryHoldsTheResult) {
  validate_ = true;
  options_.max_steps = 0;
  options_.epochs = 5.5;  // 39 batches of 7 x 5.5 = 38.5, 20 steps
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(result_.total_steps, 20);
  const auto steps = Events<report::StepEvent>();
  ASSERT_EQ(steps.size(), 20u);
  EXPECT_LT(steps.back().loss, 0.7 * steps.front().loss);
  EXPECT_EQ(steps.back().tokens, 16);  // the last step has one batch only
  EXPECT_EQ(result_.state.tokens, 39 * 16);
  const auto valid = Events<report::ValidEvent>();
  ASSERT_EQ(valid.size(), 2u);  // before and after
  EXPECT_LT(valid[1].loss, valid[0].loss);
  const Json run = *ReadJsonFile(Dir("run") + "/edgewise.json");
  EXPECT_EQ(run["status"], "finished");
  EXPECT_EQ(run["base"]["path"], "base");
  EXPECT_EQ(run["steps"], 20);
  EXPECT_EQ(run["options"]["grad_accum"], 2);
  EXPECT_TRUE(fs::exists(Dir("run") + "/table.safetensors"));
  EXPECT_TRUE(fs::exists(Dir("run") + "/README.md"));
  const std::string metrics = Text(Dir("run") + "/metrics.jsonl");
  EXPECT_NE(metrics.find("\"event\":\"step\",\"step\":20"), std::string::npos);
}

TEST_F(TrainerTest, AccumulationEqualsOneBigBatchWhateverTheMaskIs) {
  // The same 4 x 16 tokens as one batch of 64.
  struct Joined : FakeSource {
    Joined() : FakeSource(11, 7, 64), parts(11, 28, 16) {}
    Result<TokenBatch> Get(int64_t epoch, int64_t index) override {
      TokenBatch all;
      for (int64_t i = 0; i < 4; ++i) {
        const TokenBatch b = *parts.Get(epoch, index * 4 + i);
        all.ids.insert(all.ids.end(), b.ids.begin(), b.ids.end());
        all.targets.insert(all.targets.end(), b.targets.begin(), b.targets.end());
      }
      all.positions.resize(all.ids.size());
      all.first_key.resize(all.ids.size());
      return all;
    }
    FakeSource parts;
  } joined;
  FakeSource parts(11, 28, 16);
  std::vector<float> result[2];
  for (int big = 0; big < 2; ++big) {
    options_.run_dir = Dir(big ? "big" : "small");
    options_.grad_accum = big ? 1 : 4;
    FakeMethod method;
    TrainInputs inputs = Inputs();
    inputs.train = big ? static_cast<BatchSource*>(&joined) : &parts;
    Trainer trainer(*ctx_, PosixEnv(), method, options_, inputs);
    ASSERT_TRUE(trainer.Run().ok());
    result[big] = method.values();
  }
  // Every gradient is a sum of at most 64 terms in the same order: identical, save that nothing is
  // asked of the order here. 12 steps of at most lr 0.05 each; 64 eps of a gradient moves Adam's
  // update by at most that relatively.
  for (size_t i = 0; i < result[0].size(); ++i) {
    EXPECT_NEAR(result[0][i], result[1][i], 12 * 0.05 * 64 * 6e-8) << i;
  }
}

TEST_F(TrainerTest, ResumedRunIsTheUninterruptedOneBitForBit) {
  validate_ = true;
  options_.eval_every = 3;
  options_.save_every = 2;
  FakeMethod whole;
  whole.one_half = true;
  ASSERT_TRUE(Run(whole).ok());
  const std::string expected = Text(Dir("run") + "/table.safetensors");

  options_.run_dir = Dir("stopped");
  for (int stop_at = 1; stop_at <= 12; ++stop_at) {
    events_.clear();
    stop_ = false;
    on_event_ = [&](const report::Event& e) {
      const auto* step = std::get_if<report::StepEvent>(&e);
      if (step != nullptr && step->step == stop_at) stop_ = true;
    };
    FakeMethod method;
    method.one_half = true;
    const Status status = Run(method);
    // At the last step it is the validation that is cut short.
    ASSERT_EQ(status.code(), StatusCode::kInterrupted) << status.message();
    EXPECT_EQ(result_.state.step, stop_at);
  }
  stop_ = false;
  on_event_ = nullptr;
  FakeMethod last;
  last.one_half = true;
  ASSERT_TRUE(Run(last).ok());
  EXPECT_TRUE(Text(Dir("stopped") + "/table.safetensors") == expected);
  // Each step once in the metrics, in order.
  std::istringstream lines(Text(Dir("stopped") + "/metrics.jsonl"));
  int64_t next = 1;
  for (std::string line; std::getline(lines, line);) {
    const Json j = *ParseJson(line);
    if (j["event"] != "step") continue;
    EXPECT_EQ(j["step"], next++);
  }
  EXPECT_EQ(next, 13);
}

TEST_F(TrainerTest, StopInsideAStepGivesThatStepUp) {
  options_.grad_accum = 4;
  FakeMethod method;
  int64_t micros = 0;
  method.on_micro = [&](const MicroContext& c) {
    ++micros;
    if (c.step == 2 && c.micro == 1) stop_ = true;
  };
  const Status status = Run(method);
  EXPECT_EQ(status.code(), StatusCode::kInterrupted);
  EXPECT_EQ(micros, 4 * 2 + 2);  // the micro-batch under way was the last
  EXPECT_EQ(result_.state.step, 2);
  ASSERT_EQ(Checkpoints().size(), 1u);
  EXPECT_EQ(Checkpoints()[0], "checkpoint-000002");
  EXPECT_EQ((*ReadJsonFile(Dir("run") + "/edgewise.json"))["status"], "interrupted");
}

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

TEST_F(TrainerTest, ResumeNeedsACheckpointWhenRequired) {
  options_.resume = ResumeMode::kRequired;
  EXPECT_EQ(Run().code(), StatusCode::kNotFound);
}

TEST_F(TrainerTest, OneProcessAtATime) {
  auto lock = RunLock::Acquire(PosixEnv(), Dir("run"));
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(Run().code(), StatusCode::kInvalidArgument);
  lock->reset();
  EXPECT_TRUE(Run().ok());
}

TEST_F(TrainerTest, NonFiniteStepsAreSkippedAndCounted) {
  FakeMethod method;
  method.bad_loss = [](int64_t step) { return step == 3 || step == 7; };
  method.bad_grad = [](int64_t step) { return step == 4; };
  ASSERT_TRUE(Run(method).ok());
  EXPECT_EQ(result_.state.skipped_total, 3);
  EXPECT_EQ(result_.state.skipped_in_row, 0);
  for (float v : method.values()) EXPECT_TRUE(std::isfinite(v));
  const auto steps = Events<report::StepEvent>();
  EXPECT_TRUE(steps[3].skipped && steps[4].skipped && steps[7].skipped);
  EXPECT_FALSE(steps[5].skipped);
}

TEST_F(TrainerTest, ManyNonFiniteStepsInARowEndTheRunWithTheLastGoodState) {
  options_.nonfinite_patience = 3;
  options_.save_every = 1;
  FakeMethod method;
  method.bad_grad = [](int64_t step) { return step >= 5; };
  std::vector<float> good;
  on_event_ = [&](const report::Event& e) {
    const auto* step = std::get_if<report::StepEvent>(&e);
    if (step != nullptr && step->step == 5) good = method.values();
  };
  const Status status = Run(method);
  EXPECT_EQ(status.code(), StatusCode::kBadInput);
  EXPECT_NE(status.message().find("3 steps in a row, from step 6 on"), std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("checkpoint-000008"), std::string::npos) << status.message();
  FakeMethod kept;
  ASSERT_TRUE(kept.Restore(Dir("run") + "/checkpoints/checkpoint-000008").ok());
  EXPECT_EQ(kept.values(), good);
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

// A single failure of any operation of the whole run, one after the other.
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

}  // namespace
}  // namespace edgewise::tune
