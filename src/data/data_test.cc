#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>

#include "base/rng.h"
#include "data/packing.h"

namespace edgewise::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using text::jinja::Value;

// A file in a directory of its own that goes away with it.
class TempFile {
 public:
  TempFile(const std::string& name, const std::string& text) {
    static int count = 0;
    dir_ = std::filesystem::temp_directory_path() /
           ("edgewise-data-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(dir_);
    path_ = dir_ / name;
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~TempFile() { std::filesystem::remove_all(dir_); }
  std::string path() const { return path_; }
  std::string dir() const { return dir_; }

 private:
  std::filesystem::path dir_, path_;
};

Result<std::vector<Sample>> ReadAll(const std::string& path, ReadOptions options = {},
                                    ReadReport* report = nullptr) {
  std::vector<Sample> out;
  Result<ReadReport> read = ReadSamples(path, options, [&](Sample s) {
    out.push_back(std::move(s));
    return Status::Ok();
  });
  if (!read.ok()) return read.status();
  if (report != nullptr) *report = *read;
  return out;
}

Example Numbered(int length, int first = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(length));
  std::iota(ids.begin(), ids.end(), first);
  return MakeExample(ids, std::vector<uint8_t>(ids.size(), 1));
}

// Bytes as tokens, <s> before every text, ChatML's control tokens.
text::Tokenizer ByteTokenizer() {
  std::string vocab;
  for (int c = 0; c < 256; ++c) vocab += fmt::format("\"<0x{0:02X}>\": {0}, ", c);
  const auto special = [](int id, const char* content) {
    return fmt::format(R"({{"id": {}, "content": "{}", "single_word": false, "lstrip": false,
      "rstrip": false, "normalized": false, "special": true}})",
                       id, content);
  };
  Result<text::Tokenizer> out = text::Tokenizer::FromJson(
      R"({"added_tokens": [)" + special(256, "<s>") + ", " + special(257, "<|im_start|>") + ", " +
          special(258, "<|im_end|>") + R"(], "normalizer": null, "pre_tokenizer": null,
      "post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A",
          "type_id": 0}}], "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}},
      "decoder": {"type": "ByteFallback"},
      "model": {"type": "BPE", "byte_fallback": true, "vocab": {)" +
          vocab + R"("<s>": 256, "<|im_start|>": 257, "<|im_end|>": 258}, "merges": []}})",
      R"({"bos_token": "<s>", "eos_token": "<|im_end|>"})");
  EXPECT_TRUE(out.ok()) << out.status().message();
  return std::move(out).value();
}

struct Bench {
  text::Tokenizer tokenizer = ByteTokenizer();
  text::ChatTemplate chat = text::ChatTemplate::Load({}).value();
  Masker Mask(MaskOptions options = {}) {
    Result<Masker> masker = Masker::Create(chat, tokenizer, std::move(options));
    EXPECT_TRUE(masker.ok()) << masker.status().message();
    return std::move(masker).value();
  }
};

std::string Learned(const MaskedSample& s) {
  std::string out;
  for (size_t t = 0; t < s.ids.size(); ++t) {
    if (s.mask[t] == 0) continue;
    if (s.ids[t] < 256) {
      out += static_cast<char>(s.ids[t]);
    } else {
      out += fmt::format("<{}>", s.ids[t]);
    }
  }
  return out;
}

TEST(Sample, ColumnsCanBeMapped) {
  const Result<ColumnMap> map = ParseColumnMap("prompt=question,completion=answer");
  ASSERT_TRUE(map.ok());
  const Result<Sample> s = ParseSample(R"({"question": "q", "answer": "a"})", *map);
  ASSERT_TRUE(s.ok()) << s.status().message();
  EXPECT_EQ(s->format, Format::kPromptCompletion);
  const Result<ColumnMap> turns = ParseColumnMap("messages=turns,role=from,content=value");
  const Result<Sample> t = ParseSample(
      R"({"turns": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})", *turns);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_THAT(t->learned, ElementsAre(1u));
  EXPECT_EQ(t->messages.items()[0].dict().Find("role")->str(), "user");
  EXPECT_FALSE(ParseColumnMap("prompt").ok());
  EXPECT_FALSE(ParseColumnMap("wrong=x").ok());
}

TEST(Sample, HostileRowsEndInAnError) {
  const char* rows[] = {
      R"({"messages": [[]]})",
      R"({"messages": [{"role": 1, "content": ""}]})",
      R"({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]})",
      R"({"messages": [{"role": "assistant", "content": "x", "weight": "1"}]})",
      R"({"messages": [{"role": "assistant", "content": "x"}], "tools": {}})",
      R"({"messages": [{"role": "assistant", "content": "x"}], "tools": "{"})",
      R"({"conversations": {}})",
      R"({"conversations": [7]})",
      R"({"prompt": [], "completion": []})",
      R"({"instruction": "a", "output": "b", "history": [["only one"]]})",
      R"({"input_ids": []})",
      R"({"input_ids": [1, -1]})",
      R"({"input_ids": [1, 99999999999]})",
      R"({"input_ids": [1, 2], "labels": [1]})",
      R"({"input_ids": [1, 2], "labels": [2, -100]})",
      R"({"input_ids": "1 2"})",
      R"({"text": {"a": 1}})",
      "{\"text\": \"\xC3\x28\"}",
      "{\"text\": 1e999}",
      "\x00\x01",
  };
  for (const char* row : rows) EXPECT_FALSE(ParseSample(std::string_view(row)).ok()) << row;
}

TEST(Reader, ContainersAndSplits) {
  const TempFile array("a.json", R"([{"text": "one"}, {"text": "two"}])");
  EXPECT_EQ(ReadAll(array.path())->size(), 2u);
  const TempFile lines("a.json", "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n");
  ReadReport report;
  const auto samples = ReadAll(lines.path(), {}, &report);
  ASSERT_TRUE(samples.ok()) << samples.status().message();
  EXPECT_EQ(report.blank, 1);
  EXPECT_THAT((*samples)[1].where, HasSubstr("a.json:3"));
  const TempFile text("a.txt", "first\nstory\n<|endoftext|>\n\nsecond\n<|endoftext|>\n");
  const auto documents = ReadAll(text.path());
  ASSERT_TRUE(documents.ok());
  ASSERT_EQ(documents->size(), 2u);
  EXPECT_EQ((*documents)[0].text, "first\nstory");
  EXPECT_EQ((*documents)[1].text, "second");
  const TempFile plain("b.txt", "\nkept as it is\n");
  EXPECT_EQ((*ReadAll(plain.path()))[0].text, "\nkept as it is\n");
  const TempFile pairs("c.json", R"({"train": [["a b", "l_1"]], "val": [["c", "l_2"]]})");
  const auto train = ReadAll(pairs.path());
  ASSERT_TRUE(train.ok()) << train.status().message();
  EXPECT_EQ((*train)[0].messages.items()[1].dict().Find("content")->str(), "l 1");
  EXPECT_THAT(ReadAll(TempFile("x.parquet", "").path()).status().message(), HasSubstr("convert"));
  EXPECT_FALSE(ReadAll(TempFile("e.jsonl", "\n\n").path()).ok());
  EXPECT_FALSE(ReadAll("/nonexistent/x.jsonl").ok());

  const TempFile train_file("train.jsonl", "{\"text\": \"x\"}\n");
  const Result<DataFiles> files = FindDataFiles(train_file.dir());
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(files->train, HasSubstr("train.jsonl"));
  EXPECT_EQ(files->valid, "");
  EXPECT_FALSE(FindDataFiles("/nonexistent").ok());
}

TEST(Masking, LossOnChosenTurns) {
  Bench setup;
  const Sample s = *ParseSample(
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"},
          {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]})");
  EXPECT_EQ(setup.Mask().end_of_turn(), "<|im_end|>");
  EXPECT_EQ(Learned(*setup.Mask().Mask(s)), "one<258>two<258>");
  EXPECT_EQ(Learned(*setup.Mask({.loss_on = LossOn::kLastTurn}).Mask(s)), "two<258>");
  const MaskedSample all = *setup.Mask({.loss_on = LossOn::kAll}).Mask(s);
  EXPECT_EQ(std::count(all.mask.begin(), all.mask.end(), 1), static_cast<int>(all.ids.size()));
}

TEST(Masking, DataNeverSpellsControlTokens) {
  Bench setup;
  const Sample s = *ParseSample(R"({"prompt": "<|im_end|>x", "completion": "<|im_end|>y"})");
  const auto controls = [](const MaskedSample& m) {
    return std::count_if(m.ids.begin(), m.ids.end(), [](int32_t id) { return id >= 256; });
  };
  EXPECT_EQ(controls(*setup.Mask({.guard = text::InputGuard::kAll}).Mask(s)), 4);
  EXPECT_EQ(controls(*setup.Mask().Mask(s)), 5);  // the assistant may
  EXPECT_EQ(controls(*setup.Mask({.guard = text::InputGuard::kOff}).Mask(s)), 6);
  const Sample t = *ParseSample(R"({"text": "a<|im_end|>"})");
  EXPECT_EQ(controls(*setup.Mask().Mask(t)), 2);  // <s> and the end of the text
  EXPECT_EQ(controls(*setup.Mask({.guard = text::InputGuard::kOff}).Mask(t)), 3);
}

TEST(Masking, TemplatesThatRewriteTheHistory) {
  Bench setup;
  setup.chat = *text::ChatTemplate::FromString(
      "{% for m in messages %}<|im_start|>{{ m.role }}:"
      "{% if not loop.last %}{{ m.content.split('|')[-1] }}{% else %}{{ m.content }}{% endif %}"
      "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}",
      "", "");
  const Sample s = *ParseSample(
      R"({"messages": [{"role": "user", "content": "q"},
          {"role": "assistant", "content": "think|one"}, {"role": "user", "content": "r"},
          {"role": "assistant", "content": "think|two"}]})");
  const Result<MaskedSample> refused = setup.Mask().Mask(s);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("--last-turn-only"));
  EXPECT_EQ(Learned(*setup.Mask({.loss_on = LossOn::kLastTurn}).Mask(s)), "think|two<258>");
}

TEST(Masking, ManyTurnsAreBounded) {
  Bench setup;
  std::string row = R"({"messages": [{"role": "user", "content": "q"})";
  for (int i = 0; i < 2000; ++i) row += R"(, {"role": "assistant", "content": "a"})";
  const Sample s = *ParseSample(row + "]}");
  const Result<MaskedSample> refused = setup.Mask().Mask(s);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("2000 assistant turns"));
  EXPECT_EQ(Learned(*setup.Mask({.loss_on = LossOn::kLastTurn}).Mask(s)), "a<258>");
}

TEST(Masking, GenerationBlocksDecide) {
  Bench setup;
  setup.chat = *text::ChatTemplate::FromString(
      "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}."
      "{% endgeneration %}{% else %}{{ m.content }}?{% endif %}{% endfor %}",
      "", "");
  const Sample s = *ParseSample(
      R"({"messages": [{"role": "user", "content": "q"},
          {"role": "assistant", "content": "one", "weight": 0}, {"role": "user", "content": "r"},
          {"role": "assistant", "content": "two"}]})");
  EXPECT_EQ(Learned(*setup.Mask().Mask(s)), "two.");
}

TEST(Dataset, TargetsTruncationAndReport) {
  const Example e = MakeExample({5, 6, 7}, {0, 0, 1});
  EXPECT_THAT(e.targets, ElementsAre(-1, 7, -1));
  EXPECT_EQ(CountTargets(MakeExample({5}, {1})), 0);

  Bench setup;
  const TempFile file(
      "a.jsonl",
      "{\"text\": \"abcdefghij\"}\n"
      "{\"prompt\": \"a very long prompt without room\", \"completion\": \"x\"}\n"
      "{\"prompt\": \"p\", \"completion\": \"0123456789012345678901234567890123\"}\n"
      "not json\n");
  DatasetOptions options;
  options.max_length = 40;
  EXPECT_THAT(LoadDataset(file.path(), setup.Mask(), options).status().message(),
              HasSubstr("a.jsonl:4"));
  options.read.bad_rows = BadRows::kSkip;
  const Result<Dataset> set = LoadDataset(file.path(), setup.Mask(), options);
  ASSERT_TRUE(set.ok()) << set.status().message();
  EXPECT_EQ(set->report.read.rows, 3);
  EXPECT_EQ(set->report.read.bad, 1);
  EXPECT_EQ(set->report.truncated, 2);
  EXPECT_EQ(set->report.unsupervised, 1);  // the long prompt left no room for its answer
  EXPECT_EQ(set->examples.size(), 2u);
  EXPECT_THAT(Describe(set->report), HasSubstr("1 rows were left out"));

  // Text is cut into pieces that overlap by one token: every token is predicted once.
  options.max_length = 5;
  options.read.max_rows = 1;
  const Result<Dataset> pieces = LoadDataset(file.path(), setup.Mask(), options);
  ASSERT_TRUE(pieces.ok()) << pieces.status().message();
  EXPECT_EQ(pieces->report.split, 1);
  EXPECT_EQ(pieces->report.learned_tokens, 11);  // ten letters and the end of the text
  EXPECT_THAT(pieces->examples[1].ids, ElementsAre('d', 'e', 'f', 'g', 'h'));

  const TempFile prompts(
      "b.jsonl", "{\"prompt\": \"a very long prompt without room\", \"completion\": \"x\"}\n");
  EXPECT_THAT(LoadDataset(prompts.path(), setup.Mask(), options).status().message(),
              HasSubstr("no token of any row is learned"));
}

TEST(Dataset, ValidationSplit) {
  std::vector<Example> examples;
  for (int i = 0; i < 20; ++i) examples.push_back(Numbered(3, 100 * i));
  const SplitDataset a = *SplitForValidation(examples, 0.25, 7);
  const SplitDataset b = *SplitForValidation(examples, 0.25, 7);
  EXPECT_EQ(a.valid.size(), 5u);
  EXPECT_EQ(a.train.size(), 15u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(a.valid[i].key, b.valid[i].key);
  EXPECT_EQ(SplitForValidation(examples, 0.001, 7)->valid.size(), 1u);
  EXPECT_EQ(SplitForValidation(examples, 0.999, 7)->train.size(), 1u);
  EXPECT_FALSE(SplitForValidation(examples, 1.0, 7).ok());
  EXPECT_FALSE(SplitForValidation({Numbered(2)}, 0.5, 7).ok());
}

TEST(Dataset, PreviewShowsTokensWithTheirMasks) {
  Bench setup;
  const TempFile file("a.jsonl", "{\"prompt\": \"p\", \"completion\": \"c\"}\n{\"text\": \"t\"}\n");
  const auto preview = PreviewDataset(file.path(), setup.Mask(), {}, 1);
  ASSERT_TRUE(preview.ok()) << preview.status().message();
  ASSERT_EQ(preview->size(), 1u);
  std::string learned;
  for (const PreviewToken& t : (*preview)[0].tokens) learned += t.learned ? t.piece : "";
  EXPECT_EQ(learned, "c<|im_end|>");
}

TEST(Packing, EveryDocumentOnceAndNothingOverflows) {
  const uint64_t seed = 11;
  SCOPED_TRACE(seed);
  Rng rng(seed, RngStream::kTest);
  std::vector<Example> examples;
  for (int i = 0; i < 200; ++i)
    examples.push_back(Numbered(1 + static_cast<int>(rng.NextBelow(64))));
  size_t in_order = 0, best_fit = 0;
  for (const Packing packing : {Packing::kNone, Packing::kInOrder, Packing::kBestFit}) {
    const auto rows = PackExamples(examples, packing, 64);
    ASSERT_TRUE(rows.ok());
    std::set<int64_t> seen;
    for (const auto& row : *rows) {
      size_t tokens = 0;
      for (const int64_t i : row) {
        EXPECT_TRUE(seen.insert(i).second);
        tokens += examples[static_cast<size_t>(i)].ids.size();
      }
      EXPECT_LE(tokens, 64u);
    }
    EXPECT_EQ(seen.size(), examples.size());
    if (packing == Packing::kInOrder) in_order = rows->size();
    if (packing == Packing::kBestFit) best_fit = rows->size();
  }
  EXPECT_LT(best_fit, in_order);
  EXPECT_FALSE(PackExamples(examples, Packing::kNone, 10).ok());
}

TEST(Packing, BatchKeepsDocumentsApart) {
  const std::vector<Example> examples = {Numbered(3, 10), Numbered(2, 20)};
  const std::vector<int64_t> documents = {1, 0};
  const TokenBatch batch = MakeBatch(examples, documents);
  EXPECT_THAT(batch.ids, ElementsAre(20, 21, 10, 11, 12));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 1, 2));
  EXPECT_THAT(batch.first_key, ElementsAre(0, 0, 2, 2, 2));
  EXPECT_THAT(batch.targets, ElementsAre(21, -1, 11, 12, -1));
}

TEST(BatchPlan, EveryPassSeesEveryRowOnceInAnOrderOfItsOwn) {
  BatchPlan plan(10, {.batch_size = 3, .grad_accum = 2, .seed = 5});
  EXPECT_EQ(plan.micro_batches_per_epoch(), 4);
  EXPECT_EQ(plan.steps_per_epoch(), 2);
  EXPECT_EQ(plan.micro_batches_of_step(1), 2);
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t m = 0; m < 4; ++m) {
      for (const int64_t r : plan.Rows(epoch, m)) order.push_back(r);
    }
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 10u);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  // Asked for in any order, by another object: the same.
  BatchPlan again(10, {.batch_size = 3, .grad_accum = 2, .seed = 5});
  EXPECT_EQ(again.Rows(1, 1, 0), plan.Rows(1, 2));
  EXPECT_EQ(again.Rows(0, 0), plan.Rows(0, 0));
  BatchPlan other(10, {.batch_size = 10, .seed = 6});
  EXPECT_NE(other.Rows(0, 0), orders[0]);
  BatchPlan fixed(4, {.batch_size = 4, .shuffle = false});
  EXPECT_THAT(fixed.Rows(3, 0), ElementsAre(0, 1, 2, 3));
}

TEST(BatchedDataset, StreamsAndTheirBound) {
  std::vector<Example> examples;
  for (int i = 1; i <= 6; ++i) examples.push_back(Numbered(i, 10 * i));
  Result<BatchedDataset> set =
      BatchedDataset::Create(examples, Packing::kBestFit, 7, {.batch_size = 2, .seed = 1});
  ASSERT_TRUE(set.ok());
  int64_t total = 0;
  for (int64_t m = 0; m < set->plan().micro_batches_per_epoch(); ++m) {
    const TokenBatch batch = set->Batch(0, m);
    EXPECT_LE(batch.size(), set->max_batch_tokens());
    total += batch.size();
  }
  EXPECT_EQ(total, 21);
  EXPECT_FALSE(BatchedDataset::Create({}, Packing::kNone, 7, {}).ok());
  EXPECT_FALSE(BatchedDataset::Create(examples, Packing::kNone, 7, {.batch_size = 0}).ok());
}

}  // namespace
}  // namespace edgewise::data
