#include "cli/describe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

namespace edgewise::cli {
namespace {

// CLI11 writes a list of allowed values as "TEXT:{a,b}" and a range as "INT:INT in [1 - 5]".
void SplitType(const std::string& type, OptionDoc* doc) {
  doc->value = type.substr(0, type.find(':'));
  if (const size_t range = type.find(" in ["); range != std::string::npos) {
    doc->range = type.substr(range + 5, type.find(']', range) - range - 5);
    if (const size_t dash = doc->range.find(" - "); dash != std::string::npos) {
      doc->range.replace(dash, 3, " to ");
    }
  }
  const size_t open = type.find(":{");
  if (open == std::string::npos) return;
  const size_t close = type.find('}', open);
  std::string word;
  for (size_t i = open + 2; i < close && i < type.size(); ++i) {
    if (type[i] == ',') {
      doc->choices.push_back(word);
      word.clear();
    } else {
      word += type[i];
    }
  }
  if (!word.empty()) doc->choices.push_back(word);
}

}  // namespace

OptionDoc DescribeOption(const CLI::Option& option) {
  OptionDoc doc;
  doc.positional = option.get_positional();
  for (const std::string& name : option.get_lnames()) doc.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) doc.names.push_back("-" + name);
  doc.takes_value = option.get_items_expected_max() > 0;
  doc.required = option.get_required();
  if (doc.takes_value) SplitType(option.get_type_name(), &doc);
  doc.default_value = option.get_default_str();
  doc.help = option.get_description();
  doc.group = option.get_group();
  if (doc.positional) {
    if (!doc.names.empty()) doc.help += fmt::format(" (also {})", fmt::join(doc.names, ", "));
    doc.names = {option.get_name(true)};
  }
  return doc;
}

ProgramDoc Describe(const CLI::App& app, const std::string& version) {
  ProgramDoc doc;
  doc.name = app.get_name();
  doc.version = version;
  doc.description = app.get_description();
  doc.footer = app.get_footer();
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    CommandDoc command;
    command.name = sub->get_name();
    command.summary = sub->get_description();
    for (const CLI::Option* option : sub->get_options()) {
      command.options.push_back(DescribeOption(*option));
    }
    doc.commands.push_back(std::move(command));
  }
  return doc;
}

}  // namespace edgewise::cli
