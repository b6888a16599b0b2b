// Real chat templates, rendered as transformers renders them, and hostile ones.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "testing/paths.h"
#include "text/jinja/template.h"

namespace edgewise::text::jinja {
namespace {

std::string Slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The clock of the reference outputs: Sunday 2025-03-09 14:05:07.
std::tm GoldenClock() {
  std::tm now{};
  now.tm_year = 125;
  now.tm_mon = 2;
  now.tm_mday = 9;
  now.tm_hour = 14;
  now.tm_min = 5;
  now.tm_sec = 7;
  now.tm_wday = 0;
  now.tm_yday = 67;
  return now;
}

const Value& Field(const Value& row, std::string_view name) {
  const Value* found = row.dict().Find(name);
  static const Value missing;
  return found != nullptr ? *found : missing;
}

// transformers copies reasoning_content to thinking and the other way round.
Value WithThinking(const Value& messages) {
  std::vector<Value> out;
  for (const Value& message : messages.items()) {
    auto entries = message.dict().entries();
    const Value* reasoning = message.dict().Find("reasoning_content");
    const Value* thinking = message.dict().Find("thinking");
    if (reasoning != nullptr && thinking == nullptr) {
      entries.emplace_back(Value::String("thinking"), *reasoning);
    } else if (thinking != nullptr && reasoning == nullptr) {
      entries.emplace_back(Value::String("reasoning_content"), *thinking);
    }
    out.push_back(Value::MakeDict(std::move(entries)));
  }
  return Value::List(std::move(out));
}

std::vector<std::pair<std::string, Value>> Variables(const Value& row) {
  std::vector<std::pair<std::string, Value>> variables = {
      {"messages", WithThinking(Field(row, "messages"))},
      {"tools", Field(row, "tools")},
      {"documents", Value::None()},
      {"add_generation_prompt", Field(row, "add_generation_prompt")},
  };
  for (const char* group : {"variables", "kwargs"}) {
    for (const auto& [key, value] : Field(row, group).dict().entries()) {
      variables.emplace_back(std::string(key.str()), value);
    }
  }
  return variables;
}

TEST(TemplateGolden, EveryFamilyRendersAsTransformers) {
  const std::filesystem::path root = testing::GoldenDir() + "/templates";
  EW_REQUIRE_DIR(root);
  int cases = 0, errors = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    const std::filesystem::path dir = entry.path();
    if (!std::filesystem::exists(dir / "cases.jsonl")) continue;
    SCOPED_TRACE(dir.filename().string());
    const Result<Template> parsed = Template::Parse(Slurp(dir / "template.jinja"));
    ASSERT_TRUE(parsed.ok()) << parsed.status().message();
    std::istringstream lines(Slurp(dir / "cases.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const Result<Value> row = ParseJsonValue(line);
      ASSERT_TRUE(row.ok()) << row.status().message();
      SCOPED_TRACE(std::string(Field(*row, "case").str()));
      const Result<MarkedText> out = parsed->Render(Variables(*row), GoldenClock());
      const Value& error = Field(*row, "error");
      ++cases;
      if (error.is_undefined()) {
        ASSERT_TRUE(out.ok()) << out.status().message();
        EXPECT_EQ(out->bytes, Field(*row, "rendered").str());
        continue;
      }
      ++errors;
      EXPECT_FALSE(out.ok()) << "rendered " << out->bytes << " instead of "
                             << Field(error, "message").str();
      if (!out.ok() && Field(error, "type").str() == "TemplateError") {
        EXPECT_NE(out.status().message().find(std::string(Field(error, "message").str())),
                  std::string::npos)
            << out.status().message();
      }
    }
  }
  EXPECT_GT(cases, 0);
  RecordProperty("cases", cases);
  RecordProperty("errors", errors);
}

TEST(TemplateGolden, HostileTemplatesEndInAnError) {
  const std::filesystem::path root = testing::GoldenDir() + "/templates/hostile";
  EW_REQUIRE_DIR(root);
  const Result<Value> index = ParseJsonValue(Slurp(root / "index.json"));
  ASSERT_TRUE(index.ok()) << index.status().message();
  for (const Value& c : Field(*index, "cases").items()) {
    SCOPED_TRACE(std::string(Field(c, "file").str()));
    Status status;
    const auto begin = std::chrono::steady_clock::now();
    const Result<Template> parsed =
        Template::Parse(Slurp(root / std::string(Field(c, "file").str())));
    if (parsed.ok()) {
      status = parsed
                   ->Render({{"messages", Field(*index, "messages")},
                             {"bos_token", Field(*index, "bos_token")},
                             {"eos_token", Field(*index, "eos_token")}},
                            GoldenClock())
                   .status();
    } else {
      status = parsed.status();
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_FALSE(status.ok());
    const std::string kind(Field(c, "kind").str());
    EXPECT_NE(status.message().find(kind + " error"), std::string::npos) << status.message();
    std::cout << Field(c, "file").str() << ": " << seconds.count() << " s, " << status.message()
              << "\n";
  }
}

}  // namespace
}  // namespace edgewise::text::jinja
