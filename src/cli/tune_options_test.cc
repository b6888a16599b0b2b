#include "cli/tune_options.h"

#include <gtest/gtest.h>

namespace edgewise::cli {
namespace {

TEST(TuneOptions, ARunWithoutAPlaceIsNamedAfterItsModel) {
  EXPECT_EQ(DefaultRunDirectory("org/Name@revision"), "Name-tuned");
  EXPECT_EQ(DefaultRunDirectory("some/dir/Name/"), "Name-tuned");
  EXPECT_EQ(DefaultRunDirectory("dir@home/Name-Q4_0.gguf"), "Name-Q4_0-tuned");
  EXPECT_EQ(DefaultRunDirectory("."), "model-tuned");
  EXPECT_EQ(DefaultRunDirectory("/"), "model-tuned");
}

}  // namespace
}  // namespace edgewise::cli
