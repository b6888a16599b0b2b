#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "formats/memory_file.h"
#include "formats/safetensors_writer.h"
#include "io/env.h"

namespace edgewise::formats {
namespace {

using Bytes = std::vector<std::byte>;

Bytes FileOf(std::string_view header, size_t buffer_bytes) {
  Bytes file(8 + header.size() + buffer_bytes);
  const uint64_t n = header.size();
  std::memcpy(file.data(), &n, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  return file;
}

std::string WhyRefused(std::string_view header, size_t buffer_bytes) {
  const auto parsed = ParseSafetensors(FileOf(header, buffer_bytes));
  if (parsed.ok()) return "accepted";
  EXPECT_EQ(parsed.status().code(), StatusCode::kBadInput);
  return parsed.status().message();
}

Bytes SmallFile() {
  SafetensorsWriter writer(
      std::map<std::string, std::string>{{"made by", "a test \"with\" quotes"}});
  const float a[6] = {1, 2, 3, 4, 5, 6};
  const float b[1] = {-7};
  EXPECT_TRUE(writer.Add("a.weight", MakeFloatTensor({2, 3}, a)).ok());
  EXPECT_TRUE(writer.Add("scalar", MakeFloatTensor({}, b)).ok());
  EXPECT_TRUE(writer.Add("none", MakeFloatTensor({0, 4}, nullptr)).ok());
  EXPECT_TRUE(writer
                  .Add("bytes", DType::kU8, {3},
                       [](const ByteSink& sink) {
                         const std::byte x[] = {std::byte{9}, std::byte{8}, std::byte{7}};
                         EW_RETURN_IF_ERROR(sink(std::span(x, 1)));
                         return sink(std::span(x + 1, 2));
                       })
                  .ok());
  MemoryFile file;
  EXPECT_TRUE(writer.WriteTo(file).ok());
  EXPECT_EQ(static_cast<int64_t>(file.data.size()), writer.FileBytes());
  return file.data;
}

TEST(Safetensors, StoredTensorsGoOverInPieces) {
  const std::string path = ::testing::TempDir() + "/pieces.safetensors";
  std::vector<float> values(size_t{3} << 20);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  SafetensorsWriter writer;
  ASSERT_TRUE(
      writer.Add("large", MakeFloatTensor({static_cast<int64_t>(values.size())}, values.data()))
          .ok());
  ASSERT_TRUE(writer.Add("none", MakeFloatTensor({0, 4}, nullptr)).ok());
  ASSERT_TRUE(writer.Write(PosixEnv(), path).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  Bytes got;
  int pieces = 0;
  const auto sink = [&](std::span<const std::byte> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    ++pieces;
    return Status::Ok();
  };
  ASSERT_TRUE(StoredTensor(*file, "large")(sink).ok());
  EXPECT_GT(pieces, 1);
  ASSERT_EQ(got.size(), values.size() * 4);
  EXPECT_EQ(std::memcmp(got.data(), values.data(), got.size()), 0);
  ASSERT_TRUE(StoredTensor(*file, "none")(sink).ok());
  EXPECT_EQ(got.size(), values.size() * 4);
  EXPECT_EQ(StoredTensor(*file, "missing")(sink).code(), StatusCode::kNotFound);
  std::filesystem::remove(path);
}

TEST(Safetensors, RoundTrip) {
  const Bytes bytes = SmallFile();
  auto file = SafetensorsFile::FromBytes(bytes, nullptr, "memory");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->metadata().at("made by"), "a test \"with\" quotes");
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  EXPECT_EQ((*file)->Names(), (std::vector<std::string>{"a.weight", "bytes", "none", "scalar"}));
  const auto a = (*file)->Get("a.weight");
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(a->view.shape, (std::vector<int64_t>{2, 3}));
  float values[6];
  ConvertToF32(a->view.dtype, a->view.data, values, 6);
  EXPECT_EQ(values[5], 6);
  EXPECT_EQ((*file)->Get("none")->view.elements(), 0);
  EXPECT_EQ((*file)->Get("scalar")->view.shape.size(), 0u);
  EXPECT_EQ(static_cast<const uint8_t*>((*file)->Get("bytes")->view.data)[2], 7);
  EXPECT_EQ((*file)->Get("absent").status().code(), StatusCode::kNotFound);
  // F32 before U8, then by name; the buffer starts at a multiple of 8.
  EXPECT_EQ((*file)->entries()[0].name, "a.weight");
  EXPECT_EQ((*file)->entries().back().name, "bytes");
  uint64_t n = 0;
  std::memcpy(&n, bytes.data(), 8);
  EXPECT_EQ(n % 8, 0u);
}

TEST(Safetensors, RefusesByName) {
  const auto one = [](std::string_view entry) {
    return WhyRefused("{\"w\":" + std::string(entry) + "}", 4);
  };
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), "accepted");
  EXPECT_NE(one(R"({"dtype":"F99","shape":[1],"data_offsets":[0,4]})").find("\"F99\""),
            std::string::npos);
  EXPECT_NE(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})").find("\"-1\""),
            std::string::npos);
  EXPECT_NE(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})").find("unknown key"),
            std::string::npos);
  EXPECT_NE(
      one(R"({"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]})").find("duplicate"),
      std::string::npos);
  EXPECT_NE(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})")
                .find("more than 8"),
            std::string::npos);
  EXPECT_NE(one(R"({"dtype":"F32","shape":[281474976710657],"data_offsets":[0,4]})").find("2^48"),
            std::string::npos);
  EXPECT_NE(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]}x)"), "accepted");
  EXPECT_NE(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"), "accepted");
  EXPECT_NE(WhyRefused("{}", 1).find("added to"), std::string::npos);
  EXPECT_NE(WhyRefused("{} {}", 0).find("more text"), std::string::npos);
  EXPECT_NE(WhyRefused(R"({"__metadata__":{"a":"1","a":"2"}})", 0).find("duplicate"),
            std::string::npos);
  const std::string long_name(1025, 'n');
  EXPECT_NE(
      WhyRefused("{\"" + long_name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4)
          .find("1025 bytes"),
      std::string::npos);
}

TEST(Safetensors, KnowsTypesThatItDoesNotCompute) {
  const Bytes bytes = FileOf(R"({"q":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},)"
                             R"("h":{"dtype":"F4","shape":[2],"data_offsets":[3,4]}})",
                             4);
  auto file = SafetensorsFile::FromBytes(bytes, nullptr, "memory");
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto q = (*file)->Get("q");
  EXPECT_EQ(q.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(q.status().message().find("F8_E4M3"), std::string::npos);
  EXPECT_EQ((*file)->Bytes(*(*file)->Find("q")).size(), 3u);
}

// Every truncation and every change of one byte is either refused or leaves a file whose tensors
// can all be read; under a sanitizer this is a proof for these files.
TEST(Safetensors, SurvivesEveryTruncationAndByteChange) {
  const Bytes good = SmallFile();
  const auto touch = [](const Bytes& bytes) {
    auto file = SafetensorsFile::FromBytes(bytes, nullptr, "memory");
    if (!file.ok()) {
      EXPECT_FALSE(file.status().message().empty());
      return;
    }
    unsigned sum = 0;
    for (const auto& entry : (*file)->entries()) {
      for (std::byte b : (*file)->Bytes(entry)) sum += static_cast<unsigned>(b);
    }
    EXPECT_LT(sum, 1u << 20);
  };
  for (size_t n = 0; n < good.size(); ++n) {
    // An exact allocation, so that a read past the end is seen.
    const Bytes cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(n));
    EXPECT_FALSE(ParseSafetensors(cut).ok());
  }
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int x : {0x01, 0x02, 0x08, 0x20, 0x40, 0x80, 0xff}) {
      Bytes bad = good;
      bad[i] ^= static_cast<std::byte>(x);
      touch(bad);
    }
  }
}

TEST(SafetensorsWriter, RefusesWhatTheFormatForbids) {
  SafetensorsWriter writer;
  const auto none = [](const ByteSink&) { return Status::Ok(); };
  EXPECT_TRUE(writer.Add("w", DType::kF32, {2}, none).ok());
  EXPECT_FALSE(writer.Add("w", DType::kF32, {2}, none).ok());
  EXPECT_FALSE(writer.Add("", DType::kF32, {2}, none).ok());
  EXPECT_FALSE(writer.Add("__metadata__", DType::kF32, {2}, none).ok());
  EXPECT_FALSE(writer.Add("a\nb", DType::kF32, {2}, none).ok());
  EXPECT_FALSE(writer.Add("n", DType::kF32, {-1}, none).ok());
  EXPECT_FALSE(writer.Add("n", DType::kF32, {int64_t{1} << 62, 4}, none).ok());
  MemoryFile file;  // "w" hands over nothing
  EXPECT_EQ(writer.WriteTo(file).code(), StatusCode::kInternal);
}

TEST(SafetensorsWriter, FailureLeavesTheOldFile) {
  const std::string dir = ::testing::TempDir() + "/safetensors_writer_test";
  std::filesystem::create_directories(dir);
  const std::string path = dir + "/model.safetensors";
  const float x = 3;
  SafetensorsWriter good;
  ASSERT_TRUE(good.Add("x", MakeFloatTensor({1}, &x)).ok());
  ASSERT_TRUE(good.Write(PosixEnv(), path).ok());
  SafetensorsWriter bad;
  ASSERT_TRUE(bad.Add("x", DType::kF32, {1},
                      [](const ByteSink&) { return BadInput("the producer failed"); })
                  .ok());
  EXPECT_EQ(bad.Write(PosixEnv(), path).message(), "the producer failed");
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_TRUE((*file)->Has("x"));
  EXPECT_EQ(PosixEnv().ListDir(dir)->size(), 1u);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace edgewise::formats
