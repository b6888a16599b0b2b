#include "cli/config_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/suggest.h"
#include "io/env.h"

namespace edgewise::cli {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

std::vector<std::string> LongNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
    if (!option->get_positional() || !option->get_lnames().empty()) continue;
    names.push_back(option->get_single_name());
  }
  return names;
}

CLI::Option* FindOption(CLI::App& app, std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  for (CLI::Option* option : app.get_options()) {
    if (option->check_lname(name)) return option;
    if (option->get_positional()) {
      std::string positional = option->get_single_name();
      std::transform(positional.begin(), positional.end(), positional.begin(), ::tolower);
      if (positional == name) return option;
    }
  }
  return nullptr;
}

Status ApplyEntry(const std::string& where, const std::string& key, const YAML::Node& value,
                  CLI::App& app) {
  CLI::Option* option = FindOption(app, key);
  if (option == nullptr || key == "config" || key == "help") {
    return BadInput(fmt::format("{}: unknown key '{}' for '{}'{}", where, key, app.get_name(),
                                DidYouMean(key, LongNames(app))));
  }
  if (option->count() > 0) return Status::Ok();  // the command line wins
  std::vector<std::string> values;
  if (value.IsScalar()) {
    values.push_back(value.Scalar());
  } else if (value.IsSequence() && option->get_items_expected_max() > 1) {
    for (const YAML::Node& item : value) {
      if (!item.IsScalar()) return BadInput(fmt::format("{}: '{}': list of values", where, key));
      values.push_back(item.Scalar());
    }
  } else {
    return BadInput(fmt::format("{}: '{}' needs a single value", where, key));
  }
  try {
    for (const std::string& v : values) option->add_result(v);
    option->run_callback();
  } catch (const CLI::Error& error) {
    return BadInput(fmt::format("{}: '{}': {}", where, key, error.what()));
  }
  return Status::Ok();
}

}  // namespace

Status ApplyConfigFile(const std::string& path, CLI::App& app) {
  EW_ASSIGN(const std::string text, PosixEnv().ReadFile(path, kMaxConfigBytes));
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return Status::Ok();
    if (!root.IsMap()) return BadInput(path + ": expected 'option: value' lines");
    for (const auto& entry : root) {
      const std::string where = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
      if (!entry.first.IsScalar()) return BadInput(where + ": expected 'option: value'");
      EW_RETURN_IF_ERROR(ApplyEntry(where, entry.first.Scalar(), entry.second, app));
    }
  } catch (const YAML::Exception& error) {
    return BadInput(fmt::format("{}: not valid YAML: {}", path, error.what()));
  }
  return Status::Ok();
}

}  // namespace edgewise::cli
