#include "cli/commands.h"

namespace edgewise::cli {

std::vector<std::unique_ptr<Command>> MakeCommands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(MakeTune());
  commands.push_back(MakeEval());
  commands.push_back(MakeGenerate());
  commands.push_back(MakeProfile());
  commands.push_back(MakeCompress());
  commands.push_back(MakeChat());
  commands.push_back(MakeTokenize());
  commands.push_back(MakeInspect());
  commands.push_back(MakeMerge());
  commands.push_back(MakeExport());
  commands.push_back(MakeReport());
  commands.push_back(MakeBench());
  commands.push_back(MakeDevice());
  commands.push_back(MakePlan());
  commands.push_back(MakeRandomBase());
  commands.push_back(MakeSearchKernels());
  return commands;
}

}  // namespace edgewise::cli
