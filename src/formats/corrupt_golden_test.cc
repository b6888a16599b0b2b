// The corpus of damaged files: every one must end in a clear error, every control must load.
#include <gtest/gtest.h>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "io/env.h"
#include "io/json.h"
#include "testing/paths.h"

namespace edgewise::formats {
namespace {

template <typename Open>
void RunCorpus(const std::string& dir, const Open& open) {
  EW_REQUIRE_DIR(dir);
  auto index = ReadJsonFile(dir + "/index.json");
  ASSERT_TRUE(index.ok()) << index.status().message();
  int refused = 0, loaded = 0;
  for (const Json& item : (*index)["files"]) {
    const std::string path = dir + "/" + item["file"].get<std::string>();
    SCOPED_TRACE(path + ": " + item["what"].get<std::string>());
    const Status status = open(path);
    if (item["expect"] == "ok") {
      ++loaded;
      EXPECT_TRUE(status.ok()) << status.message();
    } else {
      ++refused;
      EXPECT_EQ(status.code(), StatusCode::kBadInput);
      EXPECT_NE(status.message().find(path), std::string::npos) << status.message();
      ::testing::Test::RecordProperty(item["file"].get<std::string>(), status.message());
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(loaded, 0);
}

TEST(CorruptFiles, Safetensors) {
  for (MapMode mode : {MapMode::kMap, MapMode::kRead}) {
    RunCorpus(testing::GoldenDir() + "/models/corrupt/safetensors", [&](const std::string& path) {
      auto file = SafetensorsFile::Open(path, mode);
      return file.ok() ? (*file)->Tensors().status() : file.status();
    });
  }
}

TEST(CorruptFiles, Gguf) {
  for (MapMode mode : {MapMode::kMap, MapMode::kRead}) {
    RunCorpus(testing::GoldenDir() + "/models/corrupt/gguf", [&](const std::string& path) {
      auto file = GgufFile::Open(path, mode);
      if (!file.ok()) return file.status();
      for (const GgufTensor& tensor : (*file)->tensors()) {
        EW_RETURN_IF_ERROR((*file)->DequantizeAll(tensor).status());
      }
      return Status::Ok();
    });
  }
}

}  // namespace
}  // namespace edgewise::formats
