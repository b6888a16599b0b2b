#include <gtest/gtest.h>

#include <filesystem>

#include "formats/peft.h"
#include "io/env.h"
#include "testing/paths.h"

namespace edgewise::formats {
namespace {

// Adapters made by PEFT are read and written again: both files come out the same, byte for byte.
TEST(GoldenAdapters, RoundTripIsIdentical) {
  const std::string root = testing::GoldenDir() + "/models";
  EW_REQUIRE_DIR(root);
  const std::string copy = ::testing::TempDir() + "/peft_golden_test";
  int adapters = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().filename() != "adapter_config.json") continue;
    const std::string dir = entry.path().parent_path();
    SCOPED_TRACE(dir);
    auto adapter = ReadPeftAdapter(dir);
    ASSERT_TRUE(adapter.ok()) << adapter.status().message();
    EXPECT_FALSE(adapter->pairs.empty());
    auto matcher = LoraMatcher::Create(adapter->config);
    ASSERT_TRUE(matcher.ok());
    for (const auto& [module, pair] : adapter->pairs) {
      ASSERT_TRUE(matcher->Match(module).has_value()) << module;
      EXPECT_EQ(matcher->Match(module)->r, pair.a.view.shape[0]) << module;
    }
    ASSERT_TRUE(WritePeftAdapter(PosixEnv(), copy, *adapter).ok());
    for (const char* name : {"/adapter_config.json", "/adapter_model.safetensors"}) {
      const int64_t limit = int64_t{1} << 30;
      EXPECT_EQ(PosixEnv().ReadFile(copy + name, limit).value(),
                PosixEnv().ReadFile(dir + name, limit).value());
    }
    ++adapters;
  }
  std::filesystem::remove_all(copy);
  EXPECT_GE(adapters, 6);
}

}  // namespace
}  // namespace edgewise::formats
