// Loss masks and bad rows against the reference outputs.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "data/dataset.h"
#include "testing/paths.h"
#include "text/jinja/template.h"

namespace edgewise::data {
namespace {

using text::jinja::ParseJsonValue;
using text::jinja::Value;

std::string Slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> Lines(const std::filesystem::path& path) {
  std::istringstream in(Slurp(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

size_t CodePoints(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

template <typename T>
std::vector<int64_t> Widened(const std::vector<T>& v) {
  return {v.begin(), v.end()};
}

std::vector<int64_t> Integers(const Value& list) {
  std::vector<int64_t> out;
  for (const Value& v : list.items()) out.push_back(v.integer());
  return out;
}

TEST(DataGolden, LossMasks) {
  const std::filesystem::path root = testing::GoldenDir() + "/templates/data_masks";
  EW_REQUIRE_DIR(root);
  const Result<Value> setups = ParseJsonValue(Slurp(root / "setups.json"));
  ASSERT_TRUE(setups.ok()) << setups.status().message();
  int rows = 0;
  for (const auto& [setup, fields] : setups->dict().entries()) {
    const std::filesystem::path dir = root / std::string(setup.str());
    const auto field = [&, &f = fields](const char* name) {
      return std::string(f.dict().Find(name)->str());
    };
    const Result<text::Tokenizer> tokenizer =
        text::Tokenizer::FromFile((root / field("tokenizer")).lexically_normal());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const Result<text::ChatTemplate> chat = text::ChatTemplate::FromString(
        Slurp(dir / "template.jinja"), field("bos_token"), field("end_of_turn"));
    ASSERT_TRUE(chat.ok()) << chat.status().message();
    MaskOptions options;
    options.guard = text::InputGuard::kOff;  // as the reference
    options.end_of_text = field("eos_token_for_text");
    const Result<Masker> masker = Masker::Create(*chat, *tokenizer, options);
    ASSERT_TRUE(masker.ok()) << masker.status().message();
    EXPECT_EQ(masker->end_of_turn(), field("end_of_turn"));
    for (const char* format : {"chat", "sharegpt", "prompt_completion", "alpaca", "text"}) {
      const std::vector<std::string> inputs = Lines(root / (std::string(format) + ".jsonl"));
      const std::vector<std::string> wanted =
          Lines(dir / (std::string(format) + ".expected.jsonl"));
      ASSERT_EQ(inputs.size(), wanted.size());
      for (size_t i = 0; i < inputs.size(); ++i) {
        SCOPED_TRACE(std::string(setup.str()) + " " + format + " row " + std::to_string(i));
        const Result<Value> expected = ParseJsonValue(wanted[i]);
        ASSERT_TRUE(expected.ok()) << expected.status().message();
        const Result<Sample> sample = ParseSample(inputs[i]);
        ASSERT_TRUE(sample.ok()) << sample.status().message();
        const Result<MaskedSample> masked = masker->Mask(*sample);
        ASSERT_TRUE(masked.ok()) << masked.status().message();
        ++rows;
        EXPECT_EQ(Widened(masked->ids), Integers(*expected->dict().Find("ids")));
        EXPECT_EQ(Widened(masked->mask), Integers(*expected->dict().Find("mask")));
        EXPECT_EQ(masked->straddling_token, expected->dict().Find("straddling_token") != nullptr);
        const Value* rendered = expected->dict().Find("rendered");
        if (rendered == nullptr) continue;  // text rows
        EXPECT_EQ(masked->rendered, rendered->str());
        std::vector<std::vector<int64_t>> spans, wanted_spans;
        for (const text::TextSpan& s : masked->spans) {
          const std::string_view all = masked->rendered;
          spans.push_back({static_cast<int64_t>(CodePoints(all.substr(0, s.begin))),
                           static_cast<int64_t>(CodePoints(all.substr(0, s.end)))});
        }
        for (const Value& s : expected->dict().Find("spans")->items()) {
          wanted_spans.push_back(Integers(s));
        }
        EXPECT_EQ(spans, wanted_spans);
      }
    }
  }
  EXPECT_GT(rows, 0);
}

TEST(DataGolden, BadRows) {
  const std::filesystem::path root = testing::GoldenDir() + "/templates/data_masks";
  EW_REQUIRE_DIR(root);
  const std::vector<std::string> lines = Lines(root / "bad.jsonl");
  const Result<Value> expected = ParseJsonValue(Slurp(root / "bad.expected.json"));
  ASSERT_TRUE(expected.ok()) << expected.status().message();
  int64_t bad = 0, blank = 0, good = 0;
  for (const Value& row : expected->items()) {
    const auto line = static_cast<size_t>(row.dict().Find("line")->integer());
    const std::string verdict(row.dict().Find("verdict")->str());
    const std::string diagnosis(row.dict().Find("diagnosis")->str());
    SCOPED_TRACE(std::to_string(line) + ": " + diagnosis);
    ASSERT_LE(line, lines.size());
    blank += verdict == "skip";
    if (verdict == "skip") continue;
    const Result<Sample> sample = ParseSample(lines[line - 1]);
    EXPECT_EQ(sample.ok(), verdict == "ok");
    if (!sample.ok()) std::cout << line << ": " << sample.status().message() << "\n";
    (verdict == "ok" ? good : bad) += 1;
  }
  ReadOptions options;
  options.bad_rows = BadRows::kSkip;
  const std::string path = root / "bad.jsonl";
  const Result<ReadReport> report =
      ReadSamples(path, options, [](const Sample&) { return Status::Ok(); });
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->bad, bad);
  EXPECT_EQ(report->blank, blank);
  EXPECT_EQ(report->rows, good);
  EXPECT_NE(report->first_bad[1].find("bad.jsonl:2: "), std::string::npos) << report->first_bad[1];
  const Result<ReadReport> strict =
      ReadSamples(path, ReadOptions(), [](const Sample&) { return Status::Ok(); });
  ASSERT_FALSE(strict.ok());
  EXPECT_NE(strict.status().message().find("bad.jsonl:1: "), std::string::npos);
}

}  // namespace
}  // namespace edgewise::data
