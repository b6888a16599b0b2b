#include "report/progress.h"

#include <gtest/gtest.h>

namespace edgewise::report {
namespace {

StepEvent Step(int64_t step, double elapsed, double loss = 2) {
  return {.step = step,
          .total_steps = 1000,
          .loss = loss,
          .lr = 1.9e-4,
          .tokens_per_s = 412.4,
          .elapsed_s = elapsed,
          .rss_bytes = 1740000000};
}

TEST(Progress, LineHasWhatPeopleLookFor) {
  EXPECT_EQ(Progress::StepLine(Step(120, 1, 1.84), 1.91, 843, int64_t{2} << 30),
            "step 120/1000  12%  loss 1.840 (ema 1.910)  lr 1.9e-4  412 tok/s  mem 1.62/2.00 GiB  "
            "eta 14:03");
}

TEST(Progress, NarrowLinesKeepWhatMattersMost) {
  const StepEvent step = Step(120, 1, 1.84);
  EXPECT_EQ(Progress::StepLine(step, 1.91, 843, int64_t{2} << 30, 79),
            "step 120/1000  12%  loss 1.840  412 tok/s  mem 1.62/2.00 GiB  eta 14:03");
  EXPECT_EQ(Progress::StepLine(step, 1.91, 843, int64_t{2} << 30, 86),
            "step 120/1000  12%  loss 1.840 (ema 1.910)  412 tok/s  mem 1.62/2.00 GiB  eta 14:03");
}

TEST(Progress, SmallLimitsAreInMebibytes) {
  StepEvent step = Step(1, 1);
  step.rss_bytes = int64_t{183} << 20;
  EXPECT_NE(Progress::StepLine(step, 2, -1, int64_t{512} << 20).find("mem 183/512 MiB"),
            std::string::npos);
  EXPECT_NE(Progress::StepLine(step, 2, -1, 0).find("mem 183 MiB"), std::string::npos);
}

TEST(Progress, Rates) {
  EXPECT_EQ(FormatRate(1e-3), "1.0e-3");
  EXPECT_EQ(FormatRate(0), "0");
  EXPECT_EQ(FormatRate(2.5), "2.5e0");
}

TEST(Progress, PlainPrintsEveryInterval) {
  std::string out;
  Progress p({.style = ProgressStyle::kPlain, .plain_interval_s = 10},
             [&](std::string_view s) { out += s; });
  for (int s = 1; s <= 25; ++s) p.On(Step(s, s));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3);  // steps 1, 11 and 21
  EXPECT_EQ(out.find('\r'), std::string::npos);
  EXPECT_NE(out.find("eta 16:29"), std::string::npos) << out;  // 989 steps of one second
}

TEST(Progress, ASlowFirstStepDoesNotCountInTheEta) {
  std::string out;
  Progress p({.style = ProgressStyle::kPlain, .plain_interval_s = 0},
             [&](std::string_view s) { out += s; });
  p.On(Step(1, 100));
  EXPECT_EQ(out.find("eta"), std::string::npos) << out;
  p.On(Step(2, 101));
  EXPECT_NE(out.find("eta 16:38"), std::string::npos) << out;  // 998 steps of one second
}

TEST(Progress, LiveRewritesOneLineAndCutsIt) {
  std::string out;
  Progress p({.style = ProgressStyle::kLive, .columns = 30}, [&](std::string_view s) { out += s; });
  p.On(Step(1, 1));
  p.On(Step(2, 2));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 0);
  EXPECT_LE(out.rfind("step") + 29, out.size());
  p.On(WarningEvent{2, "disk full"});
  EXPECT_NE(out.find("\r\033[Kwarning: disk full\n"), std::string::npos);
  p.On(Step(3, 3));
  p.Finish();
  p.Finish();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2);
}

TEST(Progress, QuietStillWarns) {
  std::string out;
  Progress p({.style = ProgressStyle::kQuiet}, [&](std::string_view s) { out += s; });
  p.On(Step(1, 1));
  p.On(ValidEvent{});
  EXPECT_EQ(out, "");
  p.On(WarningEvent{1, "x"});
  EXPECT_EQ(out, "warning: x\n");
}

TEST(Progress, StyleFollowsTheEnvironment) {
  EXPECT_EQ(ChooseProgress({.is_terminal = true}).style, ProgressStyle::kLive);
  EXPECT_TRUE(ChooseProgress({.is_terminal = true}).color);
  EXPECT_FALSE(ChooseProgress({.is_terminal = true, .no_color = true}).color);
  EXPECT_EQ(ChooseProgress({.is_terminal = true, .ci = true}).style, ProgressStyle::kPlain);
  EXPECT_EQ(ChooseProgress({.is_terminal = true, .dumb = true}).style, ProgressStyle::kPlain);
  EXPECT_EQ(ChooseProgress({.is_terminal = true, .no_progress = true}).style,
            ProgressStyle::kPlain);
  EXPECT_EQ(ChooseProgress({}).style, ProgressStyle::kPlain);
  EXPECT_EQ(ChooseProgress({.is_terminal = true, .quiet = true}).style, ProgressStyle::kQuiet);
}

}  // namespace
}  // namespace edgewise::report
