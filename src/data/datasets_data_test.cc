// Real data sets, read as they are distributed.
#include <gtest/gtest.h>

#include "data/reader.h"
#include "data/tasks.h"
#include "testing/paths.h"

namespace edgewise::data {
namespace {

std::string Dir() { return testing::DataDir() + "/datasets/"; }

TEST(DataSets, EveryTrainingSetReads) {
  EW_REQUIRE_DIR(Dir());
  struct Case {
    const char* path;
    Format format;
    int64_t rows;
    const char* map;
  };
  const Case cases[] = {
      {"alpaca/alpaca_5000.json", Format::kAlpaca, 5000, ""},
      {"instruct-rasbt/instruction-data.json", Format::kAlpaca, 1100, ""},
      {"gsm8k/test.jsonl", Format::kPromptCompletion, 1319, "prompt=question,completion=answer"},
      {"wikisql-1k/valid.jsonl", Format::kText, 100, ""},
      {"clinc150/data_full.json", Format::kPromptCompletion, 15000, ""},
      {"tiny-shakespeare/input.txt", Format::kText, 1, ""},
  };
  for (const Case& c : cases) {
    const std::string path = Dir() + c.path;
    if (!std::filesystem::exists(path)) continue;
    SCOPED_TRACE(path);
    ReadOptions options;
    options.columns = *ParseColumnMap(c.map);
    options.bad_rows = BadRows::kSkip;
    int64_t rows = 0;
    const Result<ReadReport> report = ReadSamples(path, options, [&](const Sample& s) {
      EXPECT_EQ(s.format, c.format);
      ++rows;
      return Status::Ok();
    });
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_EQ(rows + report->bad, c.rows);
    EXPECT_LE(report->bad, c.rows / 100) << report->first_bad[0];
  }
}

TEST(DataSets, EveryTaskReads) {
  EW_REQUIRE_DIR(Dir());
  struct Case {
    const char* path;
    TaskForm form;
    const char* split;
    size_t items;
    size_t choices;
  };
  const Case cases[] = {
      {"clinc150/data_full.json", TaskForm::kLabelled, "test", 4500, 150},
      {"clinc150/data_full.json", TaskForm::kLabelled, "valid", 3000, 150},
      {"hellaswag-subset/hellaswag.json", TaskForm::kQuestions, "valid", 1000, 4},
      {"arc-easy/test.json", TaskForm::kAnswerList, "test", 2376, 4},
      {"mmlu/zero_shot_mmlu_val.json", TaskForm::kLetteredLines, "test", 1531, 4},
      {"wikisql-1k/test.jsonl", TaskForm::kQuery, "test", 100, 1},
  };
  for (const Case& c : cases) {
    const std::string path = Dir() + c.path;
    if (!std::filesystem::exists(path)) continue;
    SCOPED_TRACE(path);
    const Result<Task> task = ReadTask(path, {.split = c.split});
    ASSERT_TRUE(task.ok()) << task.status().message();
    EXPECT_EQ(task->form, c.form);
    EXPECT_EQ(task->items.size(), c.items);
    EXPECT_EQ(task->items[0].choices.size(), c.choices);
    for (const TaskItem& item : task->items) {
      ASSERT_GE(item.gold, 0);
      ASSERT_LT(item.gold, static_cast<int>(item.choices.size()));
    }
  }
  const std::string clinc = Dir() + "clinc150/data_full.json";
  if (std::filesystem::exists(clinc)) {
    const Status missing = ReadTask(clinc, {.split = "nowhere"}).status();
    EXPECT_NE(missing.message().find("oos_val"), std::string::npos) << missing.message();
  }
}

}  // namespace
}  // namespace edgewise::data
