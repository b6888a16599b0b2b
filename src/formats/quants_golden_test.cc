#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "formats/ggml_quants.h"
#include "formats/safetensors.h"
#include "testing/paths.h"

namespace edgewise::formats {
namespace {

class Quants : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string dir = testing::GoldenDir() + "/models";
    EW_REQUIRE_DIR(dir);
    auto file = SafetensorsFile::Open(dir + "/quants.safetensors");
    ASSERT_TRUE(file.ok()) << file.status().message();
    file_ = *file;
  }
  std::span<const std::byte> Bytes(const std::string& name) {
    const SafetensorsEntry* entry = file_->Find(name);
    EXPECT_NE(entry, nullptr) << name;
    return entry == nullptr ? std::span<const std::byte>() : file_->Bytes(*entry);
  }
  std::vector<float> Floats(const std::string& name) {
    const auto bytes = Bytes(name);
    std::vector<float> values(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::shared_ptr<const SafetensorsFile> file_;
};

TEST_F(Quants, DequantiseExactly) {
  int types = 0;
  for (const std::string& name : file_->Names()) {
    const size_t dot = name.find(".blocks");
    if (dot == std::string::npos || name.find(".quantize") != std::string::npos) continue;
    ++types;
    const std::string type_name = name.substr(0, dot);
    SCOPED_TRACE(type_name);
    const GgmlTypeInfo* info = FindGgmlType(type_name);
    ASSERT_NE(info, nullptr);
    EXPECT_EQ(file_->Find(name)->shape[1], info->block_bytes);
    const std::vector<float> expected = Floats(type_name + ".values");
    std::vector<float> values(expected.size());
    const Status status = DequantizeGgml(info->type, Bytes(name), values);
    ASSERT_TRUE(status.ok()) << status.message();
    int wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) wrong += values[i] != expected[i];
    EXPECT_EQ(wrong, 0);
  }
  EXPECT_EQ(types, 13);
}

TEST_F(Quants, QuantiseExactly) {
  for (const char* type_name : {"Q8_0", "Q4_0"}) {
    SCOPED_TRACE(type_name);
    const std::vector<float> input = Floats(std::string(type_name) + ".quantize.input");
    const auto expected = Bytes(std::string(type_name) + ".quantize.blocks");
    std::vector<std::byte> blocks(expected.size());
    ASSERT_TRUE(QuantizeGgml(FindGgmlType(type_name)->type, input, blocks).ok());
    int wrong = 0;
    for (size_t i = 0; i < blocks.size(); ++i) wrong += blocks[i] != expected[i];
    EXPECT_EQ(wrong, 0);
  }
}

}  // namespace
}  // namespace edgewise::formats
