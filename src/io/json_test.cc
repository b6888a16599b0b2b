#include "io/json.h"

#include <gtest/gtest.h>

#include <string>

namespace edgewise {
namespace {

std::string Nested(int levels) {
  return std::string(static_cast<size_t>(levels), '[') + "1" +
         std::string(static_cast<size_t>(levels), ']');
}

TEST(Json, ReadsWhatIsThere) {
  const Result<Json> json = ParseJson(R"({"a": [1, -2, 0.5, true, null, "x"], "b": {"a": {}}})");
  ASSERT_TRUE(json.ok()) << json.status().message();
  EXPECT_EQ(json->dump(), R"({"a":[1,-2,0.5,true,null,"x"],"b":{"a":{}}})");
}

TEST(Json, RefusesWhatIsHostile) {
  const auto message = [](std::string_view text, JsonLimits limits = {}) {
    return ParseJson(text, limits).status().message();
  };
  EXPECT_NE(message(R"({"a": {"b": 1, "b": 2}})").find("duplicate key \"b\""), std::string::npos);
  EXPECT_NE(message(Nested(65)).find("deeper than 64"), std::string::npos);
  EXPECT_NE(message(std::string(1000000, '[')).find("deeper than 64"), std::string::npos);
  EXPECT_TRUE(ParseJson(Nested(64)).ok());
  EXPECT_FALSE(ParseJson(Nested(3), {.max_depth = 2}).ok());
  EXPECT_NE(message("{\"a\": NaN}").find("line 1, column"), std::string::npos);
  EXPECT_NE(message("1e999").find("number"), std::string::npos);
  EXPECT_NE(message("[1,]").find("column"), std::string::npos);
  EXPECT_FALSE(ParseJson("").ok());
  EXPECT_NE(message("[1, 2]", {.max_bytes = 3}).find("limit 3"), std::string::npos);
}

// In time that grows with the text: a parent of many objects once took its square.
TEST(Json, ReadsManySmallObjects) {
  std::string text = "[{}";
  for (int i = 0; i < 200000; ++i) text += ",{}";
  const Result<Json> json = ParseJson(text + "]");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->size(), 200001u);
}

}  // namespace
}  // namespace edgewise
