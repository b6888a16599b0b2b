// The command line as data, read from the same declarations that parse it: what shell completion
// and man pages are made of.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace edgewise::cli {

struct OptionDoc {
  std::vector<std::string> names;  // "--output", "-o"; a positional has one without dashes
  bool positional = false;
  bool takes_value = false;
  bool required = false;
  std::string value;                 // "TEXT", "INT", ...
  std::vector<std::string> choices;  // of the value, when it is one of a list
  std::string range;                 // "0 to 50", when the value has one
  std::string group;                 // heading under which it stands
  std::string default_value;
  std::string help;
};

struct CommandDoc {
  std::string name, summary;
  std::vector<OptionDoc> options;
};

struct ProgramDoc {
  std::string name, version, description, footer;
  std::vector<CommandDoc> commands;
};

OptionDoc DescribeOption(const CLI::Option& option);
ProgramDoc Describe(const CLI::App& app, const std::string& version);

// Scripts for "bash", "zsh" and "fish"; "" for another shell.
std::string CompletionScript(const ProgramDoc& program, const std::string& shell);

// man(7) source: of the program when `command` is null.
std::string ManPage(const ProgramDoc& program, const CommandDoc* command);

}  // namespace edgewise::cli
