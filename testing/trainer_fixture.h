// A trainer on the fake method, in a directory of its own.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "testing/fake_method.h"
#include "testing/paths.h"
#include "tune/trainer.h"

namespace edgewise::tune::testing {
namespace fs = std::filesystem;

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
            .extra_json = "",
            .lock = lock_};
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
  const RunLock* lock_ = nullptr;
  std::atomic<bool> stop_{false}, save_request_{false};
  std::function<void(const report::Event&)> on_event_;
  std::vector<report::Event> events_;
  std::vector<float> values_;
  TrainResult result_;
};

}  // namespace edgewise::tune::testing
