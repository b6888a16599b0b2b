// Rates of single arrays.
#include "tune/optimizer.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "exec/context.h"

namespace edgewise::tune {
namespace {

TEST(AdamW, FactorsThatStartAtZeroMayLearnFaster) {
  auto ctx = std::move(*ExecContext::Create({.threads = 1}));
  const char* names[] = {"layers.0.q_proj.lora_A.weight", "layers.0.q_proj.lora_B.weight",
                         "exit.0.lm_head.lora_B.weight", "exit.0.norm.weight"};
  float values[4] = {1, 1, 1, 1}, grads[4] = {0.5f, 0.5f, -2, 0.25f};
  std::vector<model::Parameter> params;
  for (int i = 0; i < 4; ++i) params.push_back({names[i], {1, 1}, 1, values + i, grads + i});
  AdamWOptions options;
  options.lora_b_rate = 8;
  AdamW adam(options, params);
  const int32_t active[] = {0, 1, 2, 3};
  adam.Step(*ctx, active, 1e-3, 1);
  // The first step of Adam is the rate, whatever the gradient (epsilon is far below it).
  const float want[] = {1 - 1e-3f, 1 - 8e-3f, 1 + 8e-3f, 1 - 1e-3f};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(values[i], want[i], 3e-7) << names[i];

  for (double wrong : {0.0, -1.0, std::numeric_limits<double>::infinity()}) {
    options.lora_b_rate = wrong;
    EXPECT_FALSE(ValidateAdamW(options).ok()) << wrong;
  }
}

}  // namespace
}  // namespace edgewise::tune
