// One maker per subcommand; each lives in its own cmd_*.cc.
#pragma once

#include <memory>

#include "cli/command.h"

namespace edgewise::cli {

std::unique_ptr<Command> MakeTokenize();
std::unique_ptr<Command> MakeEval();
std::unique_ptr<Command> MakeGenerate();
std::unique_ptr<Command> MakeProfile();
std::unique_ptr<Command> MakeCompress();
std::unique_ptr<Command> MakeChat();
std::unique_ptr<Command> MakeTune();
std::unique_ptr<Command> MakeInspect();
std::unique_ptr<Command> MakeMerge();
std::unique_ptr<Command> MakeExport();
std::unique_ptr<Command> MakeBench();

}  // namespace edgewise::cli
