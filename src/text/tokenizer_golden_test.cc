// Every family of $EDGEWISE_GOLDEN/tokenizers against ids, decoded text and streamed pieces made
// with the Hugging Face tokenizers library (see the README there): no difference is allowed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "io/json.h"
#include "testing/paths.h"
#include "text/tokenizer.h"

namespace edgewise::text {
namespace {

using Ids = std::vector<int32_t>;

std::vector<Json> ReadLines(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) {
    Result<Json> row = ParseJson(line);
    EXPECT_TRUE(row.ok()) << path << ": " << row.status().message();
    if (row.ok()) rows.push_back(std::move(*row));
  }
  return rows;
}

std::string Fnv1a64(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return fmt::format("{:016x}", hash);
}

void ExpectIds(const Json& row, const Ids& ids) {
  if (row.contains("ids")) {
    EXPECT_EQ(ids, row["ids"].get<Ids>());
    return;
  }
  const Json& summary = row["ids_long"];
  ASSERT_EQ(ids.size(), summary["n"].get<size_t>());
  const Ids head(ids.begin(), ids.begin() + std::min<size_t>(64, ids.size()));
  const Ids tail(ids.end() - std::min<ptrdiff_t>(64, ids.size()), ids.end());
  EXPECT_EQ(head, summary["head"].get<Ids>());
  EXPECT_EQ(tail, summary["tail"].get<Ids>());
  std::string bytes;
  for (int32_t id : ids) {
    for (int k = 0; k < 4; ++k) {
      bytes.push_back(static_cast<char>(static_cast<uint32_t>(id) >> (8 * k) & 0xFF));
    }
  }
  EXPECT_EQ(Fnv1a64(bytes), summary["fnv1a64"].get<std::string>());
}

// `expected`: a string, or the summary of a long one.
void ExpectText(const Json& expected, const std::string& text, const char* what) {
  if (expected.is_string()) {
    EXPECT_EQ(text, expected.get_ref<const std::string&>()) << what;
    return;
  }
  EXPECT_EQ(Fnv1a64(text), expected["fnv1a64"].get<std::string>()) << what;
}

Json Field(const Json& row, const std::string& key, const Json& fallback) {
  if (row.contains(key)) return row[key];
  if (row.contains(key + "_long")) return row[key + "_long"];
  return fallback;
}

void ExpectStream(const Json& expected, const Tokenizer& tokenizer, const Ids& ids, bool skip) {
  DecodeStream stream(tokenizer, skip);
  std::string shown;
  ASSERT_EQ(expected.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::optional<std::string> piece = stream.Step(ids[i]);
    const Json got = piece ? Json(*piece) : Json();
    EXPECT_EQ(got, expected[i]) << "piece " << i << (skip ? " of stream_full_skip" : " of stream");
    shown += piece.value_or("");
  }
  EXPECT_EQ(shown + stream.Finish(), tokenizer.Decode(ids, skip));
}

void ExpectSaneSpans(const Encoding& encoding, const std::string& text) {
  ASSERT_EQ(encoding.spans.size(), encoding.ids.size());
  for (const TextSpan& span : encoding.spans) {
    EXPECT_LE(span.begin, span.end);
    EXPECT_LE(span.end, text.size());
  }
}

void CompareRow(const Tokenizer& tokenizer, const std::string& text, const Json& row) {
  Result<Encoding> encoding = tokenizer.EncodeWithSpans(text, {.add_special_tokens = false});
  ASSERT_TRUE(encoding.ok()) << encoding.status().message();
  const Ids& ids = encoding->ids;
  ExpectIds(row, ids);
  ExpectSaneSpans(*encoding, text);

  const Ids prefix = row["prefix"].get<Ids>();
  const Ids suffix = row["suffix"].get<Ids>();
  Ids full = prefix;
  full.insert(full.end(), ids.begin(), ids.end());
  full.insert(full.end(), suffix.begin(), suffix.end());
  Result<Ids> with_specials = tokenizer.Encode(text, true);
  ASSERT_TRUE(with_specials.ok());
  EXPECT_EQ(*with_specials, full);

  const Json dec = Field(row, "dec", Json(text));
  const Json dec_skip = Field(row, "dec_skip", dec);
  ExpectText(dec, tokenizer.Decode(ids, false), "dec");
  ExpectText(dec_skip, tokenizer.Decode(ids, true), "dec_skip");
  if (row.contains("dec_full")) {
    ExpectText(row["dec_full"], tokenizer.Decode(full, false), "dec_full");
    ExpectText(Field(row, "dec_full_skip", dec_skip), tokenizer.Decode(full, true),
               "dec_full_skip");
  }
  if (!row.contains("stream")) return;
  ExpectStream(row["stream"], tokenizer, ids, false);
  Json full_skip = Json::array();
  if (row.contains("stream_full_skip")) {
    full_skip = row["stream_full_skip"];
  } else {
    for (size_t i = 0; i < prefix.size(); ++i) full_skip.push_back(nullptr);
    for (const Json& piece : row["stream"]) full_skip.push_back(piece);
    for (size_t i = 0; i < suffix.size(); ++i) full_skip.push_back(nullptr);
  }
  ExpectStream(full_skip, tokenizer, full, true);
}

class TokenizerGolden : public ::testing::Test {
 protected:
  void SetUp() override {
    EW_REQUIRE_DIR(dir_);
    Result<Json> index = ReadJsonFile(dir_ + "/index.json");
    ASSERT_TRUE(index.ok()) << index.status().message();
    index_ = std::move(*index);
    texts_ = ReadLines(dir_ + "/" + index_["texts"].get<std::string>());
  }

  const std::string dir_ = testing::GoldenDir() + "/tokenizers";
  Json index_;
  std::vector<Json> texts_;
};

TEST_F(TokenizerGolden, EveryFamily) {
  for (const auto& [family, files] : index_["families"].items()) {
    SCOPED_TRACE(family);
    Result<Tokenizer> tokenizer =
        Tokenizer::FromFile(dir_ + "/" + files["tokenizer"].get<std::string>());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    size_t compared = 0;
    for (const Json& row : ReadLines(dir_ + "/" + files["golden"].get<std::string>())) {
      const auto i = row["i"].get<size_t>();
      SCOPED_TRACE(fmt::format("row {}", i));
      ASSERT_LT(i, texts_.size());
      CompareRow(*tokenizer, texts_[i]["text"].get<std::string>(), row);
      ++compared;
    }
    EXPECT_EQ(compared, files["rows"].get<size_t>());
    fmt::print("{}: {} rows compared\n", family, compared);
  }
}

// A SentencePiece BPE model and its conversion to merges agree where the README says so.
TEST_F(TokenizerGolden, SentencePieceIdsByConvertedMerges) {
  if (!index_["families"].contains("llama2-prepend") ||
      !index_["sentencepiece"].contains("spm-bpe")) {
    GTEST_SKIP() << "this golden set has no spm-bpe";
  }
  Result<Tokenizer> tokenizer = Tokenizer::FromFile(dir_ + "/llama2-prepend/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const Json differ = index_["notes"]["llama2-prepend"]["rows_where_ids_differ_from_spm_bpe"];
  size_t compared = 0;
  for (const Json& row : ReadLines(dir_ + "/spm-bpe/golden.jsonl")) {
    const Json& entry = texts_[row["i"].get<size_t>()];
    const auto text = entry["text"].get<std::string>();
    if (entry["tag"] == "special" || text.find("<unk>") != std::string::npos ||
        text.find('\0') != std::string::npos ||
        std::find(differ.begin(), differ.end(), row["i"]) != differ.end()) {
      continue;
    }
    SCOPED_TRACE(fmt::format("row {}", row["i"].get<size_t>()));
    Result<Ids> ids = tokenizer->Encode(text, false);
    ASSERT_TRUE(ids.ok());
    ExpectIds(row, *ids);
    ++compared;
  }
  EXPECT_GT(compared, 0u);
  fmt::print("spm-bpe by llama2-prepend: {} rows compared\n", compared);
}

}  // namespace
}  // namespace edgewise::text
