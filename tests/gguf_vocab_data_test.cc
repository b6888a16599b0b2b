// Vocabularies of GGUF files against the test vectors of llama.cpp: texts (.inp) and ids (.out).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "infer/load_tokenizer.h"
#include "testing/paths.h"
#include "text/tokenizer.h"

namespace edgewise {
namespace {

using text::Tokenizer;

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<std::string> SplitTexts(const std::string& all) {
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  size_t begin = 0;
  for (size_t end = all.find(separator); end != std::string::npos;
       end = all.find(separator, begin)) {
    texts.push_back(all.substr(begin, end - begin));
    begin = end + separator.size();
  }
  texts.push_back(all.substr(begin));
  return texts;
}

std::vector<std::vector<int32_t>> ReadIds(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::vector<int32_t>> rows;
  for (std::string line; std::getline(in, line);) {
    std::istringstream numbers(line);
    rows.emplace_back(std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>());
  }
  return rows;
}

Result<Tokenizer> Load(const std::string& path) {
  EW_ASSIGN(auto file, formats::GgufFile::Open(path));
  EW_ASSIGN(text::GgufVocab vocab, infer::ReadGgufVocab(*file));
  return Tokenizer::FromGguf(std::move(vocab));
}

class GgufVocabTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GgufVocabTest, EqualsLlamaCpp) {
  const std::string dir = testing::DataDir() + "/models/tokenizer-vectors/ggml-vocab";
  EW_REQUIRE_DIR(dir);
  const std::string path = dir + "/ggml-vocab-" + GetParam() + ".gguf";
  Result<Tokenizer> tokenizer = Load(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const std::vector<std::string> texts = SplitTexts(ReadAll(path + ".inp"));
  const std::vector<std::vector<int32_t>> expected = ReadIds(path + ".out");
  ASSERT_LE(expected.size(), texts.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(fmt::format("text {}: '{}'", i, texts[i]));
    Result<std::vector<int32_t>> ids = tokenizer->Encode(texts[i], false);
    ASSERT_TRUE(ids.ok()) << ids.status().message();
    EXPECT_EQ(*ids, expected[i]);
    EXPECT_EQ(tokenizer->Decode(*ids), texts[i]);
  }
  fmt::print("{}: {} texts compared\n", GetParam(), expected.size());
}

INSTANTIATE_TEST_SUITE_P(Vectors, GgufVocabTest, ::testing::Values("llama-spm", "gpt-2"));

// The same model as directory and as GGUF file must cut text alike.
TEST(GgufVocab, HearthCutsTextAsItsDirectoryDoes) {
  const std::string dir = testing::DataDir() + "/models/hearth-10m";
  EW_REQUIRE_DIR(dir);
  Result<Tokenizer> from_json = Tokenizer::FromFile(dir);
  ASSERT_TRUE(from_json.ok()) << from_json.status().message();
  Result<Tokenizer> from_gguf = Load(dir + "/gguf/hearth-10m-Q8_0.gguf");
  ASSERT_TRUE(from_gguf.ok()) << from_gguf.status().message();
  const std::string all = ReadAll(testing::DataDir() + "/datasets/hearth-valid/valid.txt");
  ASSERT_FALSE(all.empty());
  Result<std::vector<int32_t>> a = from_json->Encode(all, false);
  Result<std::vector<int32_t>> b = from_gguf->Encode(all, false);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(*a, *b);
  EXPECT_EQ(from_json->Decode(*a), all);
  fmt::print("hearth-10m: {} tokens compared\n", a->size());
}

}  // namespace
}  // namespace edgewise
