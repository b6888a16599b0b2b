// Real quantised models, when there are any: every tensor must convert to finite floats.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "formats/gguf.h"
#include "testing/paths.h"

namespace edgewise::formats {
namespace {

TEST(RealGguf, EveryTensorConverts) {
  const std::string root = testing::DataDir() + "/models";
  EW_REQUIRE_DIR(root);
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".gguf" || entry.file_size() > (uint64_t{200} << 20)) continue;
    SCOPED_TRACE(entry.path());
    auto file = GgufFile::Open(entry.path());
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_FALSE((*file)->String("general.architecture").value().empty());
    EXPECT_GT((*file)->Strings("tokenizer.ggml.tokens")->size(), 0u);
    for (const GgufTensor& tensor : (*file)->tensors()) {
      auto values = (*file)->DequantizeAll(tensor);
      ASSERT_TRUE(values.ok()) << values.status().message();
      const auto* x = static_cast<const float*>(values->view.data);
      int64_t bad = 0;
      for (int64_t i = 0; i < values->view.elements(); ++i) bad += !std::isfinite(x[i]);
      EXPECT_EQ(bad, 0) << tensor.name;
    }
    ++files;
  }
  if (files == 0) GTEST_SKIP() << "no GGUF files in " << root;
}

}  // namespace
}  // namespace edgewise::formats
