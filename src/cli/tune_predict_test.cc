#include "cli/tune_predict.h"

#include <gtest/gtest.h>

namespace edgewise::cli {
namespace {

// What a probe of the run says of the operations holds for everything that is computed.
TEST(TunePredict, RescaleScalesWhatIsComputed) {
  RunPrediction p;
  p.device.name = "test";
  p.device.levels = {{"ram", int64_t{1} << 30, 10, 10, 0}, {"disk", 0, 1, 1, 0}};
  plan::KernelRate rate;
  rate.kind = plan::KernelKind::kLinearForward;
  rate.tokens = 8;
  rate.out = rate.in = 16;
  rate.gops = 1e-3;
  p.device.kernels = {rate};
  plan::Op op;
  op.kind = rate.kind;
  op.tokens = 8;
  op.out = op.in = 16;
  op.gops = 2e-9 * 8 * 16 * 16;
  plan::Workload w;
  w.tokens = 8;
  plan::Stage stage;
  stage.name = "layer 0";
  stage.ops = {op};
  w.stages = {stage};
  plan::Choice choice;
  choice.tokens = 8;
  const auto plan = schedule::Evaluate(p.device, w, choice, p.search);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  p.plan = *plan;
  p.steps = 10;
  p.step_seconds = plan->predicted_seconds;
  p.trunk_seconds = 1;
  p.validation_seconds = 2;
  ASSERT_TRUE(Rescale(2, &p).ok());
  EXPECT_NEAR(p.step_seconds, 2 * plan->predicted_seconds, 1e-9 * p.step_seconds);
  EXPECT_EQ(p.trunk_seconds, 2);
  EXPECT_EQ(p.validation_seconds, 4);
  EXPECT_NEAR(p.seconds, 10 * p.step_seconds + 6, 1e-9);
}

}  // namespace
}  // namespace edgewise::cli
