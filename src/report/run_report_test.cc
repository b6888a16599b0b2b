#include "report/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/env_mem.h"

namespace edgewise::report {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHostile[] = "</code><script>alert(1)</script><img src=x onerror=alert(2)>";

Status Put(Env& env, const std::string& path, const std::string& text) {
  return WriteFileAtomic(env, path, text);
}

class RunReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(env_.CreateDirs("/run").ok());
    ASSERT_TRUE(Put(env_, "/run/edgewise.json", R"({"schema": 1, "method": "lora", "seconds": 61,
      "start_valid_loss": 3.5, "best_valid_loss": 0.5, "peak_rss_bytes": 209715200,
      "base": {"path": "/base/", "fingerprint": "xxh3:0"},
      "plan": {"predicted_seconds": 60, "memory_limit_bytes": 268435456,
               "memory": {"weights": 104857600, "activations": 52428800}}})")
                    .ok());
    std::string metrics;
    for (int i = 1; i <= 20; ++i) {
      metrics += R"({"schema":1,"event":"step","step":)" + std::to_string(i) + R"(,"loss":)" +
                 std::to_string(4.0 / i) + R"(,"rss_bytes":209715200})" + "\n";
    }
    metrics += R"({"schema":1,"event":"valid","step":0,"valid_loss":3.5})"
               "\n";
    metrics += R"({"schema":1,"event":"valid","step":20,"valid_loss":0.5})"
               "\n";
    metrics += R"({"schema":1,"event":"warning","step":3,"message":"<b>careful</b>"})"
               "\n";
    metrics += R"({"schema":1,"event":"step","st)";
    ASSERT_TRUE(Put(env_, "/run/metrics.jsonl", metrics).ok());
  }
  MemEnv env_;
};

TEST_F(RunReportTest, ReadsWhatIsThere) {
  Result<RunReport> r = ReadRun(env_, "/run/");
  ASSERT_TRUE(r.ok()) << r.status().message();
  EXPECT_EQ(r->name, "run");
  EXPECT_EQ(r->train.size(), 20u);
  EXPECT_EQ(r->valid.size(), 2u);
  EXPECT_EQ(r->rss.size(), 20u);
  const std::string html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("Validation loss fell from 3.500 to 0.500, lowest after step 20"));
  EXPECT_THAT(html, HasSubstr("the limit was 256 MiB"));
  EXPECT_THAT(html, HasSubstr("&lt;b&gt;careful"));
  EXPECT_THAT(html, Not(HasSubstr("<b>careful")));
}

TEST_F(RunReportTest, ALossThatFallsFarIsDrawnOnALogarithmicAxis) {
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok());
  EXPECT_THAT(RenderReport(*r), Not(HasSubstr("logarithmic</text>")));
  r->valid.push_back({20, 0.004, -1});
  EXPECT_THAT(RenderReport(*r), HasSubstr("logarithmic</text>"));
}

TEST_F(RunReportTest, SamplesCannotInjectMarkup) {
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok());
  r->name = kHostile;
  r->samples = {{kHostile, kHostile, kHostile, "x"}};
  r->run["method"] = kHostile;
  r->run["base"]["path"] = kHostile;
  r->others.push_back({kHostile, r->run, {}});
  r->after = Json{{"accuracy", 0.5}};
  const std::string html = RenderReport(*r) + RenderPicture(*r);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
}

TEST_F(RunReportTest, SurvivesFilesOfAnotherShape) {
  ASSERT_TRUE(Put(env_, "/run/edgewise.json",
                  R"({"plan": 3, "base": [], "exits": {"a": 1}, "vote": 7, "options": "x",
                     "seconds": "long", "best_valid_loss": null})")
                  .ok());
  ASSERT_TRUE(Put(env_, "/run/metrics.jsonl", "hello\n{}\n[1]\n{\"event\":\"step\"}\n").ok());
  ASSERT_TRUE(Put(env_, "/run/samples.json", R"([1, {"prompt": 2}, "x"])").ok());
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok()) << r.status().message();
  r->sensitivity = Json::parse(R"({"layers": [{"quantized": [{"bits": 4}]}, 3, {"pruned": 1}]})");
  r->base = Json::parse(R"({"report": {"layers": [4, {"linears": []}]}})");
  r->plan = Json::parse(R"({"timeline": 5})");
  EXPECT_THAT(RenderReport(*r), HasSubstr("</html>"));
}

TEST_F(RunReportTest, ExitsAndVote) {
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok());
  r->run["exits"] = Json::parse(R"([{"exit": 0, "layers": 6, "loss": 1.5},
                                   {"exit": 1, "layers": 12, "loss": 1.25}])");
  r->run["vote"] = Json::parse(R"({"rule": "mean", "rules": {"mean": {"loss": 1.2}},
                                  "gain_over_best_exit": {"mean": 0.05, "low": 0.01, "high": 0.1}})");
  const std::string html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("Voting by &#39;mean&#39; beats the best exit alone, by 0.05 nats"));
  EXPECT_THAT(html, HasSubstr("exit after 12 layers"));
}

// Mapped weights count as far as they are resident; the rest is the program's.
TEST_F(RunReportTest, MemoryByPurposeOverTime) {
  std::string metrics;
  for (int i = 1; i <= 3; ++i) {
    metrics += R"({"schema":1,"event":"step","step":)" + std::to_string(i) +
               R"(,"loss":1,"exit":)" + std::to_string(i / 2) +
               R"(,"rss_bytes":104857600,"memory":{"weights":83886080,"trainable":10485760,)"
               R"("activations":"many"}})" +
               "\n";
  }
  metrics += R"({"schema":1,"event":"valid","step":3,"valid_loss":1,"exits":[1.5,1]})"
             "\n";
  ASSERT_TRUE(Put(env_, "/run/metrics.jsonl", metrics).ok());
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok());
  ASSERT_EQ(r->held.size(), 3u);
  EXPECT_EQ(r->train_exit, (std::vector<int>{0, 1, 1}));
  ASSERT_EQ(r->valid.size(), 3u);
  EXPECT_EQ(r->valid[1].exit, 0);
  r->run["plan"]["memory"]["runtime"] = 20 << 20;
  const std::string html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("weights of the base: 70.0 MiB"));
  EXPECT_THAT(html, HasSubstr("adapter: 10.0 MiB"));
  EXPECT_THAT(html, HasSubstr("program and data: 20.0 MiB"));
  EXPECT_THAT(html, HasSubstr("validation, exit 2"));
}

TEST_F(RunReportTest, PredictedAndMeasured) {
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok());
  r->run["plan"]["predicted_peak_bytes"] = 220200960;
  std::string html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("everything is within 5%"));
  EXPECT_THAT(html, HasSubstr("-1.6%"));
  EXPECT_THAT(html, Not(HasSubstr("time of a step")));
  r->run["memory"] = {{"peak_bytes", 100 << 20}, {"categories", {{"weights", 90 << 20}}}};
  r->run["prediction"]["step_seconds"] = 0.1;
  r->run["measured"]["step_seconds"] = 0.2;
  html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("time of a step"));
  EXPECT_THAT(html, HasSubstr("-50.0%"));
  EXPECT_THAT(html, HasSubstr("-10.0%"));
  for (const char* word : {"written to disk", "were cut", "computed again"}) {
    EXPECT_THAT(html, Not(HasSubstr(word)));
  }
  r->run["plan"]["predicted_step_written_bytes"] = 30 << 20;
  r->run["activations_written_step_bytes"] = 40 << 20;
  r->run["plan"]["split_tokens"] = 248;
  r->run["plan"]["recomputed"] = "mlp";
  r->run["plan"]["mlp_tokens"] = 512;
  html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("activations written to disk in a step"));
  EXPECT_THAT(html, HasSubstr("-25.0%"));
  EXPECT_THAT(html, HasSubstr("were cut between documents to 248 tokens"));
  EXPECT_THAT(html, HasSubstr("Activations of the MLPs were computed again"));
  EXPECT_THAT(html, HasSubstr("512 tokens at a time"));
}

TEST_F(RunReportTest, Schedule) {
  Result<RunReport> r = ReadRun(env_, "/run");
  ASSERT_TRUE(r.ok());
  r->plan = Json::parse(R"({"predicted_seconds": 4, "simulated": true, "device": "a <device>",
                           "streams": {"compute_seconds": 3, "load_seconds": 2}})");
  EXPECT_THAT(RenderReport(*r), HasSubstr("A step takes 4.0 s, computing 75% of it (simulated)"));
  r->plan["timeline"] = Json::parse(R"([{"stream": "c", "begin": 0, "end": 3, "name": "layer 0"},
                                       {"stream": "l", "begin": 1, "end": 1e300, "name": 7}, 5])");
  const std::string html = RenderReport(*r);
  EXPECT_THAT(html, HasSubstr("layer 0: 0 to 3 s"));
  EXPECT_THAT(html, Not(HasSubstr("<device>")));
}

TEST_F(RunReportTest, ADirectoryThatIsNoRunIsAnError) {
  ASSERT_TRUE(env_.CreateDirs("/empty").ok());
  Result<RunReport> r = ReadRun(env_, "/empty");
  ASSERT_FALSE(r.ok());
  EXPECT_THAT(r.status().message(), HasSubstr("not a run"));
}

TEST(Scores, AreKnownByWhatTheyMeasured) {
  EXPECT_STREQ(ScoreKey({{"loss", 1}, {"perplexity", 2.7}}), "perplexity");
  EXPECT_STREQ(ScoreKey({{"accuracy", 0.5}, {"loss", 1}}), "accuracy");
  EXPECT_STREQ(ScoreKey({{"loss", nullptr}}), "loss");  // measured, and not finite
  EXPECT_EQ(ScoreKey({{"best_valid_loss", 1}}), nullptr);
  EXPECT_EQ(ScoreKey(Json::array({"loss"})), nullptr);
  EXPECT_EQ(ScoreKey(Json()), nullptr);
}

TEST(Samples, RoundTrip) {
  const std::vector<ReportSample> samples = {{"p", "w", "b", "a\xFF"}};
  Result<Json> json = ParseJson(DumpJson(SamplesToJson(samples)));
  ASSERT_TRUE(json.ok());
  const auto back = SamplesFromJson(*json);
  ASSERT_EQ(back.size(), 1u);
  EXPECT_EQ(back[0].prompt, "p");
  EXPECT_EQ(back[0].before, "b");
}

}  // namespace
}  // namespace edgewise::report
