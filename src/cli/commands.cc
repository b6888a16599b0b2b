#include "cli/command.h"

namespace edgewise::cli {

std::vector<std::unique_ptr<Command>> MakeCommands() {
  std::vector<std::unique_ptr<Command>> commands;
  return commands;
}

}  // namespace edgewise::cli
