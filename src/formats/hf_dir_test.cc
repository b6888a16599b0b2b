#include "formats/hf_dir.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "io/json.h"

namespace edgewise::formats {
namespace {

namespace fs = std::filesystem;

class HfDir : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/hf_dir_test_" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  void Put(const std::string& name, std::string_view contents) {
    const std::string path = dir_ + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    ASSERT_TRUE(WriteFileAtomic(PosixEnv(), path, contents).ok());
  }
  // Three tensors of 16 bytes each, `a` to `c`.
  void WriteModel(int64_t shard_bytes) {
    HfDirWriter writer("{\"model_type\":\"llama\"}", shard_bytes);
    const float x[4] = {1, 2, 3, 4};
    for (const char* name : {"a", "b", "c"}) {
      ASSERT_TRUE(writer.Add(name, MakeFloatTensor({2, 2}, x)).ok());
    }
    ASSERT_TRUE(writer.AddFile("tokenizer.json", "{}").ok());
    const Status status = writer.Write(PosixEnv(), dir_);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  std::string WhyNot() {
    auto tensors = ShardedTensors::Open(dir_);
    return tensors.ok() ? "opened" : tensors.status().message();
  }
  std::string dir_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(HfDir, RoundTripInOneFile) {
  WriteModel(1000);
  EXPECT_EQ(PosixEnv().ListDir(dir_).value(),
            (std::vector<std::string>{"config.json", "model.safetensors", "tokenizer.json"}));
  auto tensors = ShardedTensors::Open(dir_);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ((*tensors)->Names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE((*tensors)->warnings().empty());
  EXPECT_HAS((*tensors)->Get("z").status().message(), "model.safetensors");
}

TEST_F(HfDir, RoundTripInShardsAndBack) {
  WriteModel(32);
  EXPECT_EQ(PosixEnv().ListDir(dir_).value(),
            (std::vector<std::string>{"config.json", "model-00001-of-00002.safetensors",
                                      "model-00002-of-00002.safetensors",
                                      "model.safetensors.index.json", "tokenizer.json"}));
  auto index = ReadJsonFile(dir_ + "/model.safetensors.index.json");
  EXPECT_EQ((*index)["metadata"]["total_size"], 48);
  EXPECT_EQ((*index)["metadata"]["total_parameters"], 12);
  EXPECT_EQ((*index)["weight_map"]["c"], "model-00002-of-00002.safetensors");
  auto tensors = ShardedTensors::Open(dir_);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  EXPECT_EQ((*tensors)->files().size(), 2u);
  EXPECT_EQ((*tensors)->Get("c")->view.elements(), 4);
  EXPECT_EQ((*tensors)->Get("z").status().code(), StatusCode::kNotFound);
  // Written again as one file: the old shards are gone.
  WriteModel(1000);
  EXPECT_EQ(PosixEnv().ListDir(dir_)->size(), 3u);
}

TEST_F(HfDir, RefusesBadIndexes) {
  WriteModel(32);
  const auto index = [](std::string_view shard) {
    return "{\"weight_map\":{\"a\":\"" + std::string(shard) + "\"}}";
  };
  const char* name = "model.safetensors.index.json";
  for (const char* bad : {"../model-00001-of-00002.safetensors", "/etc/passwd", "sub/x.safetensors",
                          "..", "", "config.json", "C:x.safetensors"}) {
    Put(name, index(bad));
    EXPECT_HAS(WhyNot(), "plain name");
  }
  Put(name, index("model-00002-of-00002.safetensors"));
  EXPECT_HAS(WhyNot(), "does not have it");
  Put(name, index("model-00003-of-00003.safetensors"));
  EXPECT_HAS(WhyNot(), "cannot open");
  Put(name, "{\"weight_map\":[]}");
  EXPECT_HAS(WhyNot(), "weight_map");
  Put(name, "{\"weight_map\":{\"a\":1}}");
  EXPECT_HAS(WhyNot(), "not a string");
  Put(name, index("model-00001-of-00002.safetensors"));  // "b" is in it, unmapped
  auto tensors = ShardedTensors::Open(dir_);
  ASSERT_TRUE(tensors.ok());
  ASSERT_EQ((*tensors)->warnings().size(), 1u);
  EXPECT_HAS((*tensors)->warnings()[0], "\"b\"");
  EXPECT_FALSE((*tensors)->Has("b"));
}

TEST_F(HfDir, NeverReadsPickles) {
  Put("config.json", "{}");
  EXPECT_HAS(WhyNot(), "neither");
  Put("pytorch_model.bin", "\x80\x02");
  EXPECT_HAS(WhyNot(), "save_pretrained");
}

TEST_F(HfDir, ResolvesNames) {
  const std::string hub = dir_ + "/hub";
  const auto why_not = [&](const std::string& name) {
    auto location = ResolveModel(name, hub);
    return location.ok() ? "found " + location->path : location.status().message();
  };
  Put("model/config.json", "{}");
  Put("m.gguf", "GGUF");
  Put("notes.txt", "");
  Put("empty/notes.txt", "");
  Put("one/m-q8.gguf", "GGUF");
  Put("two/a.gguf", "GGUF");
  Put("two/b.gguf", "GGUF");
  Put("adapter/adapter_config.json", "{}");
  Put("hub/models--org--name/refs/main", "abc123\n");
  Put("hub/models--org--name/snapshots/abc123/config.json", "{}");
  Put("hub/models--org--name/snapshots/def456/config.json", "{}");
  Put("hub/models--org--evil/refs/main", "../../../model");
  Put("hub/models--gpt2/snapshots/777/config.json", "{}");

  EXPECT_EQ(ResolveModel(dir_ + "/model", hub)->kind, ModelLocation::Kind::kHfDirectory);
  EXPECT_EQ(ResolveModel(dir_ + "/m.gguf", hub)->kind, ModelLocation::Kind::kGguf);
  EXPECT_EQ(ResolveModel(dir_ + "/one", hub)->kind, ModelLocation::Kind::kGguf);
  EXPECT_HAS(why_not(dir_ + "/two"), "name the one");
  EXPECT_HAS(why_not(dir_ + "/notes.txt"), "not a .gguf");
  EXPECT_HAS(why_not(dir_ + "/empty"), "config.json");
  EXPECT_HAS(why_not(dir_ + "/adapter"), "adapter");
  EXPECT_HAS(why_not(dir_ + "/absent.gguf"), "no file");
  EXPECT_HAS(why_not("org/name"), "snapshots/abc123");
  EXPECT_HAS(why_not("org/name@def456"), "snapshots/def456");
  EXPECT_HAS(why_not("org/name@v2"), "no snapshot of revision v2");
  EXPECT_HAS(why_not("org/name@../x"), "no revision");
  EXPECT_HAS(why_not("org/evil"), "does not name a commit");
  EXPECT_HAS(why_not("gpt2"), "snapshots/777");
  EXPECT_HAS(why_not("org/other"), "hf download");
  EXPECT_HAS(why_not("../org/name"), "no file");
}

}  // namespace
}  // namespace edgewise::formats
