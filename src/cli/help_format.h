// The help text of the program and of its commands: 80 columns, one name of an option in front and
// its other names behind the explanation.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace edgewise::cli {

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;
  std::string make_option(const CLI::Option* option, bool positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

}  // namespace edgewise::cli
