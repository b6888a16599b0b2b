#include "model/flops.h"

#include <gtest/gtest.h>

#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

TEST(CountStep, CountsByHand) {
  ModelConfig c = testing::TinyLlama();
  // q, o: 16 x 16; k, v: 8 x 16; gate, up, down: 24 x 16.
  const double linears = 2 * 256 + 2 * 128 + 3 * 384;
  const double attention = 4 * (10 * 11 / 2) * 16;
  StepWorkOptions o;
  o.tokens = 10;
  o.supervised = 4;
  o.train_from = 3;
  StepWork work = CountStep(c, o);
  EXPECT_DOUBLE_EQ(work.forward, 3 * (2 * 10 * linears + attention));
  EXPECT_DOUBLE_EQ(work.backward, 0);
  EXPECT_DOUBLE_EQ(work.head, 2 * 4 * 37 * 16);
  o.train_from = 1;
  work = CountStep(c, o);
  EXPECT_DOUBLE_EQ(work.backward, 2 * (2 * 10 * linears + 2.5 * attention));
  EXPECT_DOUBLE_EQ(work.head, 2 * 2 * 4 * 37 * 16);
  o.recompute = true;
  EXPECT_DOUBLE_EQ(CountStep(c, o).recompute, work.forward / 3 * 2);
  // A window of 3: 1 + 2 + 3 * 8 visible keys.
  for (LayerConfig& layer : c.layers) layer.window = 3;
  o.train_from = 3;
  EXPECT_DOUBLE_EQ(CountStep(c, o).forward, 3 * (2 * 10 * linears + 4 * 27 * 16));
}

TEST(DecodeFlops, CountsByHand) {
  const ModelConfig c = testing::TinyLlama();
  const double linears = 2 * 256 + 2 * 128 + 3 * 384;
  EXPECT_DOUBLE_EQ(DecodeFlops(c, 5), 2 * 37 * 16 + 3 * (2 * linears + 4 * 5 * 16));
}

}  // namespace
}  // namespace edgewise::model
