// --config FILE.yaml: every option of a command may come from a file; the command line wins.
#pragma once

#include <string>

#include "base/status.h"

namespace CLI {
class App;
}

namespace edgewise::cli {

// Gives the options of `app` that the command line did not set the values of the file, a flat
// mapping from option names (with or without dashes, '_' for '-') to scalars or, for options that
// take several values, lists. Error: file, line, key and what is wrong; an unknown key names the
// nearest known one.
Status ApplyConfigFile(const std::string& path, CLI::App& app);

}  // namespace edgewise::cli
