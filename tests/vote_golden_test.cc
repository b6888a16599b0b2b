#include <gtest/gtest.h>

#include "testing/golden.h"
#include "testing/paths.h"
#include "vote/rules.h"

namespace edgewise::vote {
namespace {

using edgewise::testing::OpenGolden;
using edgewise::testing::ReadGolden;

TEST(VoteGolden, EveryRule) {
  const std::string dir = edgewise::testing::GoldenDir() + "/models/llama-deep/exits";
  EW_REQUIRE_DIR(dir);
  const auto file = OpenGolden(dir + "/votes.safetensors");
  ASSERT_NE(file, nullptr);
  const auto logits = ReadGolden<double>(file, "logits");
  const auto temperatures = ReadGolden<double>(file, "temperatures");
  const auto exits = static_cast<int>(temperatures.size());
  const auto shape = file->Find("logits")->shape;
  const auto rows = static_cast<size_t>(shape[1]), vocab = static_cast<size_t>(shape[2]);
  for (const std::string prefix : {"temp.", "plain."}) {
    for (const auto& [name, rule] :
         {std::pair{"max_prob", Rule::kMaxProb}, std::pair{"mean", Rule::kMean},
          std::pair{"weighted", Rule::kWeighted}, std::pair{"most_confident", Rule::kConfident}}) {
      VoteConfig config;
      config.rule = rule;
      config.weights = ReadGolden<double>(file, "weights");
      const auto want = ReadGolden<double>(file, prefix + name);
      const auto want_exit = ReadGolden<int64_t>(file, prefix + "most_confident.exit");
      std::vector<double> p(static_cast<size_t>(exits) * vocab), out(vocab);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t e = 0; e < static_cast<size_t>(exits); ++e) {
          Softmax(std::span(logits).subspan((e * rows + r) * vocab, vocab),
                  prefix == "temp." ? temperatures[e] : 1.0,
                  std::span(p).subspan(e * vocab, vocab));
        }
        const int decided = Combine(config, p, exits, out);
        if (rule == Rule::kConfident) {
          EXPECT_EQ(decided, want_exit[r]);
        }
        // Sums of `vocab` probabilities in double.
        for (size_t v = 0; v < vocab; ++v) EXPECT_NEAR(out[v], want[r * vocab + v], 1e-13);
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::vote
