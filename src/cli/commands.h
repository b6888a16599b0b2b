// One maker per subcommand; each lives in its own cmd_*.cc.
#pragma once

#include <memory>

#include "cli/command.h"

namespace edgewise::cli {

std::unique_ptr<Command> MakeTokenize();
std::unique_ptr<Command> MakeEval();
std::unique_ptr<Command> MakeGenerate();

}  // namespace edgewise::cli
