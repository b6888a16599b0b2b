#include "cli/help_format.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/describe.h"
#include "report/table.h"

namespace edgewise::cli {
namespace {

constexpr int kHelpColumn = 26;

// `head` and beside it, or below where it is too long, `text` in as many lines as it takes.
std::string TwoColumns(const std::string& head, const std::string& text) {
  std::string out = "  " + head;
  if (text.empty()) return out + '\n';
  const int column = report::DisplayWidth(out);
  if (column > kHelpColumn - 2) {
    out += '\n';
    out.append(kHelpColumn, ' ');
  } else {
    out.append(static_cast<size_t>(kHelpColumn - column), ' ');
  }
  return out + report::Wrap(text, kHelpColumn, kHelpColumn) + '\n';
}

// "N", "X", "TEXT", or the values to choose from where they are few.
std::string ValueName(const OptionDoc& doc) {
  if (!doc.takes_value) return "";
  const std::string list = fmt::format("{}", fmt::join(doc.choices, "|"));
  if (!list.empty() && list.size() <= 16) return " " + list;
  if (doc.value == "INT" || doc.value == "UINT") return " N";
  return doc.value == "FLOAT" ? " X" : " TEXT";
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string name,
                                     CLI::AppFormatMode mode) const {
  std::string text = Formatter::make_help(app, std::move(name), mode);
  for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  return text;
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool positional) const {
  const OptionDoc doc = DescribeOption(*option);
  if (positional) return TwoColumns(doc.names.front(), doc.help);
  if (doc.positional) return "";  // its other names stand beside it, above
  // Long names stand first in the description.
  std::string head = doc.names.front() + ValueName(doc);
  std::vector<std::string> others;
  for (size_t i = 1; i < doc.names.size(); ++i) {
    if (doc.names[i].starts_with("--")) {
      others.push_back(doc.names[i]);
    } else {
      head = doc.names[i] + ", " + head;
    }
  }
  std::string facts;
  const auto add = [&](const std::string& fact) { facts += (facts.empty() ? "" : "; ") + fact; };
  if (!doc.range.empty()) add(doc.range);
  // What the explanation says already is not said again.
  if (!doc.default_value.empty() && doc.help.find("(default") == std::string::npos) {
    add("default: " + doc.default_value);
  }
  if (!others.empty()) add(fmt::format("also {}", fmt::join(others, ", ")));
  std::string text = doc.help;
  if (!facts.empty()) text += (text.empty() ? "(" : " (") + facts + ")";
  return TwoColumns(head, text);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return TwoColumns(command->get_name(), command->get_description());
}

}  // namespace edgewise::cli
