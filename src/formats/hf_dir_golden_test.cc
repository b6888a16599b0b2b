#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "formats/hf_dir.h"
#include "testing/paths.h"

namespace edgewise::formats {
namespace {

TEST(GoldenModels, AllDirectoriesOpen) {
  const std::string root = testing::GoldenDir() + "/models";
  EW_REQUIRE_DIR(root);
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path());
    auto tensors = ShardedTensors::Open(entry.path());
    ASSERT_TRUE(tensors.ok()) << tensors.status().message();
    EXPECT_TRUE((*tensors)->warnings().empty());
    EXPECT_TRUE((*tensors)->Has("model.embed_tokens.weight"));
    for (const std::string& name : (*tensors)->Names()) EXPECT_TRUE((*tensors)->Get(name).ok());
    ++models;
  }
  EXPECT_GE(models, 11);
}

TEST(GoldenModels, ShardsHoldTheSameTensorsAsTheOneFile) {
  const std::string root = testing::GoldenDir() + "/models";
  EW_REQUIRE_DIR(root);
  auto one = ShardedTensors::Open(root + "/llama-bf16");
  auto many = ShardedTensors::Open(root + "/llama-bf16-sharded");
  ASSERT_TRUE(one.ok() && many.ok());
  EXPECT_EQ((*many)->files().size(), 3u);
  ASSERT_EQ((*one)->Names(), (*many)->Names());
  for (const std::string& name : (*one)->Names()) {
    const TensorView a = (*one)->Get(name)->view, b = (*many)->Get(name)->view;
    ASSERT_EQ(a.shape, b.shape);
    EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())), 0) << name;
  }
}

// A file written by the reference library is reproduced byte for byte.
TEST(GoldenModels, WriterReproducesTheReferenceFiles) {
  const std::string root = testing::GoldenDir() + "/models";
  EW_REQUIRE_DIR(root);
  for (const char* name :
       {"/llama/model.safetensors", "/llama-bf16/model.safetensors", "/llama/golden.safetensors",
        "/quants.safetensors", "/llama/lora/patterns/adapter_model.safetensors"}) {
    SCOPED_TRACE(name);
    auto file = SafetensorsFile::Open(root + name);
    ASSERT_TRUE(file.ok()) << file.status().message();
    SafetensorsWriter writer((*file)->metadata());
    for (const std::string& tensor : (*file)->Names()) {
      ASSERT_TRUE(writer.Add(tensor, (*file)->Get(tensor).value()).ok());
    }
    const std::string copy = ::testing::TempDir() + "/reference_copy.safetensors";
    ASSERT_TRUE(writer.Write(PosixEnv(), copy).ok());
    const int64_t limit = int64_t{1} << 30;
    EXPECT_EQ(PosixEnv().ReadFile(copy, limit).value(),
              PosixEnv().ReadFile(root + name, limit).value());
    std::filesystem::remove(copy);
  }
}

}  // namespace
}  // namespace edgewise::formats
