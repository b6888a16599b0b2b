#include "tune/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <sstream>

#include "io/json.h"
#include "testing/trainer_fixture.h"

namespace edgewise::tune {
namespace {

namespace fs = std::filesystem;
using testing::FakeMethod;
using testing::FakeSource;
using testing::TrainerTest;

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

// A single failure of any operation of the whole run, one after the other.
}  // namespace
}  // namespace edgewise::tune
