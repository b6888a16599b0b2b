// The program: parse, call the command, print, exit code.
#pragma once

namespace edgewise::cli {

// Never throws; the value is the exit code.
int RunProgram(int argc, char** argv);

// SIGPIPE is ignored: a closed stdout is noticed when writing.
void IgnoreClosedPipes();

}  // namespace edgewise::cli
