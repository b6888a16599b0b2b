// A run is killed with SIGKILL at random moments and resumed until it is done: the result must be
// the same bytes as that of a run that nobody disturbed.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/rng.h"
#include "testing/paths.h"
#include "testing/tiny_tuning.h"
#include "tune/model_method.h"
#include "tune/trainer.h"

namespace edgewise::tune {
namespace {

namespace fs = std::filesystem;
using testing::TinyModel;
using testing::TinySource;

constexpr int kKills = 20;
constexpr int64_t kSteps = 120;

// What a process does: resume if there is something to resume from, and go on to the end.
int Tune(const std::string& dir, int threads) {
  auto ctx = ExecContext::Create({.threads = threads});
  auto model = TinyModel();
  if (!ctx.ok() || model == nullptr) return 70;
  TinySource train(1, 9), valid(2, 1);
  ModelMethodOptions m;
  m.lora.r = 4;
  m.lora.targets = formats::LoraConfig::Targets::kAllLinear;
  m.lora.lora_dropout = 0.05;
  auto method = ModelMethod::Create(**ctx, *model, m, train.max_tokens());
  if (!method.ok()) return 70;
  TrainOptions o;
  o.run_dir = dir;
  o.max_steps = kSteps;
  o.grad_accum = 2;
  o.lr = {.lr = 0.01};
  o.save_every = 2;
  o.eval_every = 5;
  o.resume = ResumeMode::kAuto;
  TrainInputs inputs{.train = &train,
                     .valid = &valid,
                     .base_path = "tiny",
                     .base_fingerprint = "tiny-5",
                     .version = "test",
                     .extra_json = ""};
  Trainer trainer(**ctx, PosixEnv(), **method, o, inputs);
  const Status status = trainer.Run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}

std::string Text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

pid_t Start(const std::string& dir, int threads) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(Tune(dir, threads));
  return pid;
}

TEST(Kill, ResumedRunsEndInTheSameBytes) {
  const uint64_t seed = 20240607;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed, RngStream::kTest);
  const fs::path root =
      fs::path(edgewise::testing::TempRoot()) / ("edgewise-kill-" + std::to_string(::getpid()));
  fs::remove_all(root);

  const auto begin = std::chrono::steady_clock::now();
  int rc = 0;
  ASSERT_GT(::waitpid(Start((root / "whole").string(), 1), &rc, 0), 0);
  ASSERT_EQ(rc, 0);
  const double whole_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::string expected = Text(root / "whole" / "adapter_model.safetensors");
  ASSERT_FALSE(expected.empty());

  int kills = 0, finished = 0;
  for (int attempt = 0; kills < kKills && attempt < 10 * kKills; ++attempt) {
    // Mostly early, so that one run takes several kills; sometimes anywhere.
    const double limit = rng.NextBelow(4) == 0 ? whole_s : 0.3 * whole_s;
    const double delay = limit * rng.NextDouble();
    const std::string dir = (root / ("killed-" + std::to_string(finished))).string();
    const pid_t pid = Start(dir, 1 + attempt % 2);
    ASSERT_GT(pid, 0);
    std::this_thread::sleep_for(std::chrono::duration<double>(delay));
    ::kill(pid, SIGKILL);
    ASSERT_EQ(::waitpid(pid, &rc, 0), pid);
    if (WIFSIGNALED(rc)) {
      ++kills;
      continue;
    }
    ASSERT_EQ(WEXITSTATUS(rc), 0) << "attempt " << attempt;
    EXPECT_TRUE(Text(fs::path(dir) / "adapter_model.safetensors") == expected) << dir;
    ++finished;
  }
  EXPECT_EQ(kills, kKills);
  const std::string dir = (root / ("killed-" + std::to_string(finished))).string();
  ASSERT_GT(::waitpid(Start(dir, 2), &rc, 0), 0);
  ASSERT_EQ(rc, 0);
  EXPECT_TRUE(Text(fs::path(dir) / "adapter_model.safetensors") == expected);
  fs::remove_all(root);
}

}  // namespace
}  // namespace edgewise::tune
