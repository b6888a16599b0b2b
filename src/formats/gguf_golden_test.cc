#include <gtest/gtest.h>

#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/hf_dir.h"
#include "formats/memory_file.h"
#include "testing/paths.h"

namespace edgewise::formats {
namespace {

std::vector<float> Floats(const HostTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.view.elements()));
  ConvertToF32(tensor.view.dtype, tensor.view.data, values.data(), tensor.view.elements());
  return values;
}

// The golden weights are exact in f16, so both files must give the safetensors' values.
TEST(GoldenGguf, SameWeightsAsTheModelDirectory) {
  const std::string root = testing::GoldenDir() + "/models";
  EW_REQUIRE_DIR(root);
  for (const char* model : {"llama", "qwen2"}) {
    auto source = ShardedTensors::Open(root + "/" + model);
    ASSERT_TRUE(source.ok()) << source.status().message();
    for (const char* type : {"F32", "F16"}) {
      const std::string path = root + "/gguf/" + model + "-" + type + ".gguf";
      SCOPED_TRACE(path);
      auto file = GgufFile::Open(path);
      ASSERT_TRUE(file.ok()) << file.status().message();
      EXPECT_EQ((*file)->String("general.architecture").value(), model);
      const auto same = [&](const std::string& gguf_name, const std::string& hf_name) {
        const GgufTensor* tensor = (*file)->FindTensor(gguf_name);
        ASSERT_NE(tensor, nullptr) << gguf_name;
        const auto expected = (*source)->Get(hf_name);
        ASSERT_TRUE(expected.ok()) << expected.status().message();
        EXPECT_EQ(tensor->shape, expected->view.shape);
        EXPECT_EQ(Floats((*file)->DequantizeAll(*tensor).value()), Floats(*expected)) << gguf_name;
      };
      same("token_embd.weight", "model.embed_tokens.weight");
      same("output_norm.weight", "model.norm.weight");
      same("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight");
      same("blk.2.attn_v.weight", "model.layers.2.self_attn.v_proj.weight");
    }
  }
}

TEST(GoldenGguf, CopiesAreIdentical) {
  const std::string root = testing::GoldenDir() + "/models/gguf";
  EW_REQUIRE_DIR(root);
  for (const char* name : {"/llama-F16.gguf", "/qwen2-F32.gguf"}) {
    auto mapped = MappedFile::Open(root + name);
    ASSERT_TRUE(mapped.ok());
    auto file = GgufFile::Open(root + name);
    ASSERT_TRUE(file.ok()) << file.status().message();
    GgufWriter writer(static_cast<uint32_t>((*file)->header().alignment));
    for (const auto& [key, value] : (*file)->header().metadata) {
      ASSERT_TRUE(writer.SetValue(key, value).ok());
    }
    for (const GgufTensor& tensor : (*file)->tensors()) {
      ASSERT_TRUE(writer.AddTensor(tensor.name, tensor.type, (*file)->Dense(tensor).value()).ok());
    }
    MemoryFile copy;
    ASSERT_TRUE(writer.WriteTo(copy).ok());
    const auto original = (*mapped)->bytes();
    ASSERT_EQ(copy.data.size(), original.size());
    EXPECT_TRUE(std::equal(original.begin(), original.end(), copy.data.begin()));
  }
}

}  // namespace
}  // namespace edgewise::formats
