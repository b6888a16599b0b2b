#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "formats/gguf_writer.h"
#include "formats/memory_file.h"
#include "formats/tensor_source.h"

namespace edgewise::formats {
namespace {

using Bytes = std::vector<std::byte>;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

HostTensor RandomTensor(std::vector<int64_t> shape, uint64_t seed) {
  Rng rng(seed, RngStream::kTest);
  HostTensor tensor = MakeFloatTensor(shape, std::vector<float>(4096).data());
  auto* data = static_cast<float*>(const_cast<void*>(tensor.view.data));
  for (int64_t i = 0; i < tensor.view.elements(); ++i) {
    data[i] = static_cast<float>(rng.NextNormal());
  }
  return tensor;
}

Bytes Written(const GgufWriter& writer) {
  MemoryFile file;
  EXPECT_TRUE(writer.WriteTo(file).ok());
  EXPECT_EQ(static_cast<int64_t>(file.data.size()), writer.FileBytes());
  return file.data;
}

Bytes SmallFile(uint32_t alignment) {
  GgufWriter writer(alignment);
  const std::vector<std::string> tokens = {"a", "", "\xff\xfe"};
  const std::vector<int32_t> types = {1, 2, -3};
  const std::vector<float> scores = {0.5f, -1};
  EXPECT_TRUE(writer.SetString("general.architecture", "llama").ok());
  EXPECT_TRUE(writer.SetU32("llama.block_count", 2).ok());
  EXPECT_TRUE(writer.SetU64("big", ~uint64_t{0}).ok());
  EXPECT_TRUE(writer.SetI32("negative", -5).ok());
  EXPECT_TRUE(writer.SetF32("eps", 1e-5f).ok());
  EXPECT_TRUE(writer.SetBool("flag", true).ok());
  EXPECT_TRUE(writer.SetStrings("tokens", tokens).ok());
  EXPECT_TRUE(writer.SetI32s("types", types).ok());
  EXPECT_TRUE(writer.SetF32s("scores", scores).ok());
  EXPECT_TRUE(writer.AddTensor("w", GgmlType::kQ8_0, RandomTensor({3, 64}, 1)).ok());
  EXPECT_TRUE(writer.AddTensor("half", GgmlType::kF16, RandomTensor({5}, 2)).ok());
  EXPECT_TRUE(writer.AddTensor("norm", GgmlType::kF32, RandomTensor({7}, 3)).ok());
  return Written(writer);
}

std::shared_ptr<const GgufFile> Open(const Bytes& bytes) {
  auto file = GgufFile::FromBytes(bytes, nullptr, "memory");
  EXPECT_TRUE(file.ok()) << file.status().message();
  return file.ok() ? *file : nullptr;
}

TEST(Gguf, RoundTrip) {
  for (const uint32_t alignment : {32u, 64u, 8u}) {
    const Bytes bytes = SmallFile(alignment);
    const auto file = Open(bytes);
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(file->header().version, 3u);
    EXPECT_EQ(file->header().alignment, alignment);
    EXPECT_EQ(file->String("general.architecture").value(), "llama");
    EXPECT_EQ(file->Int("llama.block_count").value(), 2);
    EXPECT_EQ(file->Int("negative").value(), -5);
    EXPECT_EQ(file->Float("eps").value(), static_cast<double>(1e-5f));
    EXPECT_EQ(file->Float("negative").value(), -5.0);
    EXPECT_TRUE(file->Bool("flag").value());
    EXPECT_EQ(file->Strings("tokens").value()[2], "\xff\xfe");
    EXPECT_EQ(file->Ints("types").value(), (std::vector<int64_t>{1, 2, -3}));
    EXPECT_EQ(file->Ints("negative").value(), (std::vector<int64_t>{-5}));
    EXPECT_EQ(file->Floats("scores").value(), (std::vector<float>{0.5f, -1}));
    EXPECT_EQ(file->IntOr("absent", 9).value(), 9);
    const GgufTensor* w = file->FindTensor("w");
    ASSERT_NE(w, nullptr);
    EXPECT_EQ(w->shape, (std::vector<int64_t>{3, 64}));
    EXPECT_EQ(w->offset % alignment, 0u);
    EXPECT_EQ(file->Dense(*w).status().code(), StatusCode::kUnsupported);

    const HostTensor expected = RandomTensor({3, 64}, 1);
    const auto* x = static_cast<const float*>(expected.view.data);
    std::vector<float> row(64);
    ASSERT_TRUE(file->Dequantize(*w, 1, 1, row).ok());
    for (int i = 0; i < 64; ++i) {
      // Half a step of amax / 127 with amax < 5, and the rounding of the scale to 11 bits.
      EXPECT_NEAR(row[static_cast<size_t>(i)], x[64 + i], 5.0 / 127 * 0.5 + 5.0 / 2048);
    }
    EXPECT_FALSE(file->Dequantize(*w, 3, 1, row).ok());
    EXPECT_FALSE(file->Dequantize(*w, -1, 1, row).ok());
    EXPECT_FALSE(file->Dequantize(*w, 0, 2, row).ok());
    EXPECT_EQ(file->Dense(*file->FindTensor("half"))->view.dtype, DType::kF16);
  }
}

TEST(Gguf, GettersNameFileAndKey) {
  const Bytes bytes = SmallFile(32);
  const auto file = Open(bytes);
  EXPECT_HAS(file->Int("absent").status().message(), "memory: metadata \"absent\" is missing");
  EXPECT_HAS(file->Int("tokens").status().message(), "array of 3 string");
  EXPECT_HAS(file->Int("big").status().message(), "too large");
  EXPECT_HAS(file->String("big").status().message(), "must be a string, but is u64");
  EXPECT_HAS(file->Floats("types").status().message(), "array of floats");
  EXPECT_HAS(file->Ints("tokens").status().message(), "array of integers");
  EXPECT_HAS(file->Bool("eps").status().message(), "a bool");
  EXPECT_HAS(file->Strings("types").status().message(), "array of strings");
  EXPECT_EQ(file->IntOr("tokens", 1).status().code(), StatusCode::kBadInput);
  EXPECT_EQ(file->Tensor("nope").status().code(), StatusCode::kNotFound);
}

TEST(Gguf, ValuesCopyToAnotherFile) {
  const Bytes bytes = SmallFile(64);
  const auto file = Open(bytes);
  GgufWriter copy(64);
  for (const auto& [key, value] : file->header().metadata) {
    ASSERT_TRUE(copy.SetValue(key, value).ok());
  }
  for (const GgufTensor& tensor : file->tensors()) {
    ASSERT_TRUE(copy.AddTensor(tensor.name, tensor.type, tensor.shape,
                               [&](const ByteSink& sink) { return sink(file->Bytes(tensor)); })
                    .ok());
  }
  EXPECT_EQ(Written(copy), bytes);
}

TEST(GgufWriter, RefusesWhatTheFormatForbids) {
  GgufWriter writer;
  const auto none = [](const ByteSink&) { return Status::Ok(); };
  EXPECT_TRUE(writer.SetU32("a", 1).ok());
  EXPECT_FALSE(writer.SetU32("a", 1).ok());
  EXPECT_FALSE(writer.SetU32("", 1).ok());
  EXPECT_FALSE(writer.AddTensor(std::string(64, 'n'), GgmlType::kF32, {1}, none).ok());
  EXPECT_FALSE(writer.AddTensor("five", GgmlType::kF32, {1, 1, 1, 1, 1}, none).ok());
  EXPECT_FALSE(writer.AddTensor("row", GgmlType::kQ8_0, {2, 33}, none).ok());
  EXPECT_TRUE(writer.AddTensor("w", GgmlType::kF32, {1}, none).ok());
  EXPECT_FALSE(writer.AddTensor("w", GgmlType::kF32, {1}, none).ok());
  MemoryFile file;
  EXPECT_EQ(writer.WriteTo(file).code(), StatusCode::kInternal);
}

TEST(GgmlQuantize, HostileFloatsHaveCodes) {
  std::vector<float> x(32, 1.0f);
  x[3] = NAN;
  x[4] = INFINITY;
  x[5] = -INFINITY;
  Bytes blocks(34);
  std::vector<float> y(32);
  for (const GgmlType type : {GgmlType::kQ8_0, GgmlType::kQ4_0}) {
    ASSERT_TRUE(QuantizeGgml(type, x, blocks).ok());
    ASSERT_TRUE(DequantizeGgml(type, blocks, y).ok());
  }
  EXPECT_FALSE(QuantizeGgml(GgmlType::kQ8_0, std::span(x).first(31), blocks).ok());
  EXPECT_FALSE(QuantizeGgml(GgmlType::kQ8_0, x, std::span(blocks).first(33)).ok());
  EXPECT_EQ(QuantizeGgml(GgmlType::kQ4_K, std::span(x).first(0), blocks).code(),
            StatusCode::kUnsupported);
  EXPECT_FALSE(DequantizeGgml(GgmlType::kQ8_0, std::span(blocks).first(33), y).ok());
  EXPECT_EQ(DequantizeGgml(GgmlType::kIQ2_S, blocks, std::span(y).first(0)).code(),
            StatusCode::kUnsupported);
}

// As for safetensors: what is not refused can be read to the end.
TEST(Gguf, SurvivesEveryTruncationAndByteChange) {
  const Bytes good = SmallFile(32);
  const auto touch = [](const Bytes& bytes) {
    auto file = GgufFile::FromBytes(bytes, nullptr, "memory");
    if (!file.ok()) {
      EXPECT_FALSE(file.status().message().empty());
      return;
    }
    for (const auto& [key, value] : (*file)->header().metadata) {
      (void)(*file)->Int(key);
      (void)(*file)->Ints(key);
      (void)(*file)->Floats(key);
      (void)(*file)->Strings(key);
    }
    for (const GgufTensor& tensor : (*file)->tensors()) (void)(*file)->DequantizeAll(tensor);
  };
  for (size_t n = 0; n < good.size(); ++n) {
    const Bytes cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(n));
    touch(cut);
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int x : {0x01, 0x02, 0x08, 0x20, 0x40, 0x80, 0xff}) {
      Bytes bad = good;
      bad[i] ^= static_cast<std::byte>(x);
      touch(bad);
    }
  }
}

}  // namespace
}  // namespace edgewise::formats
