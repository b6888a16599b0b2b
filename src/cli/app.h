// The program: parse, call the command, print, exit code.
#pragma once

namespace edgewise::cli {

// Never throws; the value is the exit code.
int RunProgram(int argc, char** argv);

// SIGPIPE is ignored: a closed stdout is noticed when writing.
void IgnoreClosedPipes();

// Standard streams that the caller has closed get an empty file that cannot be written, so that
// no file that is opened later takes their place and gets what is printed.
void HoldStandardStreams();

}  // namespace edgewise::cli
