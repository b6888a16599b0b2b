// One maker per subcommand; each lives in its own cmd_*.cc.
#pragma once

#include <memory>

#include "cli/command.h"
#include "plan/device.h"

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
std::unique_ptr<Command> MakeReport();
std::unique_ptr<Command> MakeBench();
std::unique_ptr<Command> MakeDevice();
std::unique_ptr<Command> MakePlan();
std::unique_ptr<Command> MakeRandomBase();
std::unique_ptr<Command> MakeSearchKernels();

// $TMPDIR where that is a directory, else /tmp.
std::string TemporaryDirectory();

// The kept profile of this machine, measured first when there is none (or `refresh`). `disk`: a
// directory on the disk to measure; "": that of the profile, or, where nothing can be written
// there, that of temporary files. `kept_in`: receives where the profile is kept; "" where it cannot
// be, which is no error.
Result<plan::Device> MeasuredDevice(Invocation& inv, bool refresh = false,
                                    const std::string& disk = "", std::string* kept_in = nullptr);

}  // namespace edgewise::cli
