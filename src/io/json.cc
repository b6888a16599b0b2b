#include "io/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "io/env.h"

namespace edgewise {

namespace {

// Looks at a text without building anything: depth and duplicate keys. (A callback of Json::parse
// would do, but with one the parser searches the whole parent after every object and array in it.)
class Checker : public Json::json_sax_t {
 public:
  explicit Checker(int max_depth) : max_depth_(max_depth) {}

  const std::string& problem() const { return problem_; }

  bool start_object(size_t) override {
    keys_.emplace_back();
    return Deeper();
  }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    problem_ = fmt::format("JSON refused: duplicate key \"{}\"", name);
    return false;
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(size_t) override { return Deeper(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception& error) override {
    problem_ = fmt::format("not valid JSON: {}", error.what());
    return false;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

 private:
  bool Deeper() {
    if (depth_++ < max_depth_) return true;
    problem_ = fmt::format("JSON refused: nested deeper than {} levels", max_depth_);
    return false;
  }

  const int max_depth_;
  int depth_ = 0;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
  std::string problem_;
};

}  // namespace

Result<Json> ParseJson(std::string_view text, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    return BadInput(fmt::format("JSON text of {} bytes, limit {}", text.size(), limits.max_bytes));
  }
  try {
    Checker checker(limits.max_depth);
    if (!Json::sax_parse(text.begin(), text.end(), &checker)) return BadInput(checker.problem());
    return Json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("not valid JSON: {}", e.what()));
  } catch (const std::exception& e) {
    return BadInput(fmt::format("JSON refused: {}", e.what()));
  }
}

Result<Json> ReadJsonFile(const std::string& path, JsonLimits limits) {
  EW_ASSIGN(std::string text, PosixEnv().ReadFile(path, static_cast<int64_t>(limits.max_bytes)));
  return ParseJson(text, limits).WithContext(path);
}

std::string DumpJson(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string DumpJson(const OrderedJson& json, int indent) {
  return json.dump(indent, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace edgewise
